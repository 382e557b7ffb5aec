# %% [markdown]
# # A shop's catalogue, from CSV to recommendations
#
# Two tables are enough: who bought what when, and what the items are called. Here both are
# written first, from the data set `Mini`, in the way that a shop might export them.

# %%
from pathlib import Path

import pandas as pd

data = next(p for p in (Path("dataset"), Path("../../dataset")) if (p / "Mini").is_dir())
events = pd.read_csv(data / "Mini" / "Mini.inter", sep="\t")
events.columns = [name.split(":")[0] for name in events.columns]
orders = pd.DataFrame(
    {
        "customer": events["user_id"],
        "sku": events["item_id"],
        "bought": pd.to_datetime(events["timestamp"], unit="D", origin="2024-01-01"),
    }
)
orders.to_csv("orders.csv", index=False)
products = pd.read_csv(data / "Mini" / "Mini.titles.tsv", sep="\t")
products.columns = ["sku", "title"]
products.to_csv("products.csv", index=False)
print(orders.head(3))
print(products.head(3))

# %% [markdown]
# ## Prepare
#
# `prepare` finds usual names of columns by itself; others are named. It counts every row that it
# leaves out, and says why.

# %%
from recbole_bbqrec.cli.main import main  # noqa: E402

main([
    "prepare", "Shop", "--interactions=orders.csv", "--items=products.csv", "--data_path=shop_data",
    "--user_column=customer", "--item_column=sku", "--time_column=bought", "--text_columns=title",
])  # fmt: skip

# %% [markdown]
# ## Look before training
#
# Do the neighbours by text make sense? If not, the rows of a table do not belong together, and no
# model will help.

# %%
main(["inspect", "Shop", "--data_path=shop_data", "--output=shop.png"])

# %% [markdown]
# ## Train and recommend
#
# `ItemNeighbours` learns nothing and takes a second: a baseline that any model must beat. For
# `BBQRec`, change the name.

# %%
from recbole_bbqrec import load_run, run  # noqa: E402

options = {"data_path": "shop_data", "modalities": ["text"], "state": "WARNING"}
result = run("ItemNeighbours", "Shop", overrides=options)
print(result["test_result"])

# %%
shop = load_run(Path(result["files"]["model"]).with_suffix(""))
print(shop.recommend(users=[orders["customer"][0]], k=5))
