# %% [markdown]
# # A first run and its report card
#
# One model is trained in both phases, asked for recommendations, and checked. The data set `Mini`
# comes with the repository: 617 users and 405 items, with text and images, all synthetic. The
# options make the model small, so that this takes seconds; leave them out for the defaults.

# %%
from pathlib import Path

from recbole_bbqrec import load_run, run

data = next(p for p in (Path("dataset"), Path("../../dataset")) if (p / "Mini").is_dir())
small = {
    "data_path": str(data), "epochs": 2, "tokenizer_epochs": 3, "tokenizer_warmup_epochs": 1,
    "hidden_size": 32, "inner_size": 64, "codebook_size": 32, "codebook_dim": 16,
    "encoder_hidden": [32], "sequence_hidden_size": 32, "sequence_layers": 1, "num_beams": 20,
    "n_heads": 2, "encoder_layers": 1, "decoder_layers": 1,
    "train_batch_size": 256, "show_progress": False, "state": "WARNING",
}  # fmt: skip
result = run("BBQRec", "Mini", overrides=small)

# %% [markdown]
# The result is plain values. `split_hash` says on which split the figures were obtained: two runs
# can be compared only if it is the same.

# %%
print(result["test_result"])
print("split", result["split_hash"])

# %% [markdown]
# ## Recommendations
#
# A saved run is loaded by its folder. `recommend` takes users of the data set, or the history of
# anybody.

# %%
folder = Path(result["files"]["model"]).with_suffix("")
loaded = load_run(folder)
print(loaded.recommend(users=["u0017"], k=5))

# %%
history = ["i0398", "i0395"]  # oldest first
print(loaded.recommend(histories=[history], k=5, exclude_history=True))

# %% [markdown]
# ## The report card
#
# `python -m recbole_bbqrec report saved/<run>` does the same on the command line. The page needs
# no network: [how to read it](report_card.md).

# %%
from recbole_bbqrec.cli.main import main  # noqa: E402

main(["report", str(folder), "--sample=20"])
