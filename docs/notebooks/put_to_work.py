# %% [markdown]
# # A shop, from its tables to a service
#
# A synthetic shop of 1,000 customers and 600 products goes the whole way: prepare, train, lists
# for everyone, new products, a day of orders, a service, and a model that loads without RecBole.
# The networks are far too small and trained far too short to be good: the whole page takes less
# than a minute.

# %%
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd

rng = np.random.default_rng(0)
CUSTOMERS, PRODUCTS, NEW, KINDS = 1000, 600, 100, 60
ADJECTIVES = ["red", "light", "warm", "small", "old", "long", "round", "soft", "plain", "blue"]
NOUNS = ["tent", "stove", "boot", "rope", "lamp", "mug", "map", "sock", "knife", "pack"]

kind = rng.integers(0, KINDS, PRODUCTS + NEW)  # of each product
sku = np.array([f"p{number:04d}" for number in range(PRODUCTS + NEW)])
products = pd.DataFrame(
    {
        "sku": sku,
        "title": [f"{ADJECTIVES[k % 10]} {NOUNS[k // 6]} {n % 7}" for n, k in enumerate(kind)],
        "price": rng.integers(5, 90, PRODUCTS + NEW),
    }
)
centres = rng.normal(size=(KINDS, 32))
vectors = (centres[kind] + 0.5 * rng.normal(size=(PRODUCTS + NEW, 32))).astype(np.float32)
of_kind = [np.flatnonzero(kind[:PRODUCTS] == k) for k in range(KINDS)]


def basket(customer: str, first_day: int, size: int) -> list[tuple[str, str, int]]:
    """Orders of a customer, who goes from one kind of product to the next."""
    begin, start = rng.integers(KINDS), first_day * 86_400
    times = start + np.sort(rng.integers(0, 30 * 86_400, size))
    chosen = [rng.choice(of_kind[(begin + place) % KINDS]) for place in range(size)]
    return [(customer, sku[item], int(at)) for item, at in zip(chosen, times)]


rows = [row for n in range(CUSTOMERS) for row in basket(f"c{n:04d}", 20_000, rng.integers(5, 11))]
orders = pd.DataFrame(rows, columns=["customer", "sku", "bought"])
orders.to_csv("orders.csv", index=False)
products[:PRODUCTS].to_parquet("products.parquet")
np.save("image.npy", vectors[:PRODUCTS])
Path("image_items.txt").write_text("\n".join(sku[:PRODUCTS]) + "\n")
print(f"{len(orders):,} orders")
print(products.head(3))

# %% [markdown]
# ## Prepare and train
#
# `--keep_all_items` keeps products that hardly anybody ordered. The vectors are given; the text is
# encoded from the titles.

# %%
from recbole_bbqrec import load_run, run  # noqa: E402
from recbole_bbqrec.cli.main import main  # noqa: E402

columns = ["--user_column=customer", "--time_column=bought"]
assert main([
    "prepare", "Shop", "--interactions=orders.csv", "--items=products.parquet", "--data_path=data",
    "--item_column=sku", "--items_item_column=sku", "--text_columns=title", *columns,
    "--features=image=image.npy,image_items.txt", "--keep_all_items",
]) == 0  # fmt: skip
small = {
    "data_path": "data", "modalities": ["text", "image"], "state": "WARNING", "num_beams": 20,
    "tokenizer_epochs": 2, "tokenizer_warmup_epochs": 1, "epochs": 2, "eval_step": 2,
    "tokenizer_batch_size": 1024, "train_batch_size": 2048, "learning_rate": 0.003,
    "hidden_size": 32, "inner_size": 64, "n_heads": 2, "encoder_layers": 1, "decoder_layers": 1,
    "codebook_size": 64, "codebook_dim": 16, "encoder_hidden": [64], "sequence_hidden_size": 32,
    "sequence_layers": 1, "show_progress": False,
}  # fmt: skip
result = run("BBQRec", "Shop", overrides=small)
shop = str(Path(result["files"]["model"]).with_suffix(""))
print(result["test_result"])

# %% [markdown]
# ## Lists for everyone
#
# One row for each customer and rank, in a parquet file. Filters act inside the search.

# %%
assert main([
    "recommend", shop, "--output=recs.parquet", "--topk=5", "--exclude_seen",
    "--where=price < 50", "--items=products.parquet",
]) == 0  # fmt: skip
print(pd.read_parquet("recs.parquet").head(5))

# %% [markdown]
# ## A hundred new products
#
# They get semantic IDs from their titles and vectors, without training; no old ID changes.

# %%
products[PRODUCTS:].to_csv("new_products.csv", index=False)
np.save("new_image.npy", vectors[PRODUCTS:])
Path("new_items.txt").write_text("\n".join(sku[PRODUCTS:]) + "\n")
assert main([
    "add_items", shop, "--items=new_products.csv", "--items_item_column=sku",
    "--text_columns=title", "--features=image=new_image.npy,new_items.txt", "--output=saved/wider",
]) == 0  # fmt: skip

# %% [markdown]
# ## A day of orders
#
# Old and new customers buy old and new products; phase two goes on from its weights.

# %%
last = orders.groupby("customer")["sku"].last()
buyers = [*rng.choice(last.index, 300, replace=False), "newcomer"]
bought = []
for number, customer in enumerate(buyers):
    kind_before = kind[int(last.get(customer, "p0000")[1:])]
    item = rng.choice(np.flatnonzero(kind == (kind_before + 1) % KINDS))  # new products, too
    bought.append((customer, sku[item], 20_040 * 86_400 + number))
today = pd.DataFrame(bought, columns=["customer", "sku", "bought"])
today.to_csv("today.csv", index=False)
assert main([
    "update", "saved/wider", "--interactions=today.csv", "--item_column=sku", *columns,
    "--epochs=1", "--output=saved/current",
]) == 0  # fmt: skip

# %% [markdown]
# ## A service
#
# It needs `pip install 'recbole_bbqrec[serve]'`. The request below is what `curl -d '{...}'` sends.

# %%
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
command = [sys.executable, "-m", "recbole_bbqrec", "serve", "saved/current", f"--port={port}"]
service = subprocess.Popen(command, env=os.environ)


def ask(path: str, body: object = None) -> dict:
    """Send a request to the service and return its answer."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}",
        None if body is None else json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


try:
    for _ in range(300):
        try:
            ask("/ready")
            break
        except OSError:
            assert service.poll() is None, "the service has ended"
            time.sleep(0.2)
    history = [sku[0], sku[PRODUCTS + 1]]
    served = ask("/recommend", {"history": history, "k": 3, "exclude_seen": True})
    print(json.dumps(served, indent=1))
    print(ask(f"/items/{sku[PRODUCTS + 1]}")["semantic_id"])
finally:
    service.terminate()
    service.wait(timeout=30)

# %% [markdown]
# ## A model without RecBole
#
# The exported folder loads with torch and NumPy alone, and gives the same list.

# %%
assert main(["export", "saved/current", "--output=exported"]) == 0
script = """
import json, sys
sys.modules["recbole"] = sys.modules["pandas"] = None  # as if they were not installed
from recbole_bbqrec.portable.model import PortableModel
model = PortableModel.load("exported")
print(json.dumps(model.recommend([json.loads(sys.argv[1])], k=5)[0]))
"""
found = subprocess.run(
    [sys.executable, "-c", script, json.dumps(history)], check=True, capture_output=True, text=True
)
exported = [token for token, _ in json.loads(found.stdout)]
live = load_run("saved/current").recommend(histories=[history], k=5)
assert exported == list(live["item"])
print(live)
