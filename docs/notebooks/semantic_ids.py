# %% [markdown]
# # Inside semantic IDs
#
# What do the codes know? A small model is trained on `Mini`, and its codes are taken apart: how
# they are used, what items of one code have in common, and how similar the items of a history
# are.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch

from recbole_bbqrec import load_run, run
from recbole_bbqrec.generator.network.attention import similarity_buckets

data = next(p for p in (Path("dataset"), Path("../../dataset")) if (p / "Mini").is_dir())
small = {
    "data_path": str(data), "epochs": 1, "tokenizer_epochs": 6, "tokenizer_warmup_epochs": 2,
    "hidden_size": 32, "inner_size": 64, "codebook_size": 32, "codebook_dim": 16,
    "encoder_hidden": [32], "sequence_hidden_size": 32, "num_beams": 20,
    "train_batch_size": 256, "show_progress": False, "state": "WARNING",
}  # fmt: skip
result = run("BBQRec", "Mini", overrides=small)
loaded = load_run(Path(result["files"]["model"]).with_suffix(""))
ids = loaded.semantic_ids().set_index("item")
print(ids.head(3))

# %% [markdown]
# ## How evenly the codes are used
#
# A code that half of the items share says little about them.

# %%
figure, axes = plt.subplots(figsize=(7, 3))
for signal in ("id", "text", "image"):
    counts = ids[f"level1/{signal}"].value_counts()
    axes.plot(range(len(counts)), counts.to_numpy(), label=signal)
axes.set(xlabel="codes of level 1, most used first", ylabel="items")
axes.legend()
figure.savefig("code_use.png")

# %% [markdown]
# ## What items of one code have in common
#
# Titles of the items that share the most used first code of text.

# %%
titles = pd.read_csv(data / "Mini" / "Mini.titles.tsv", sep="\t", index_col=0).iloc[:, 0]
most = ids["level1/text"].value_counts().index[0]
print(titles.reindex(ids.index[ids["level1/text"] == most]).head(8).to_string())

# %% [markdown]
# ## Neighbours by quantized vector
#
# The vector of an item is made of its codes alone, so near items share codes.

# %%
vectors = loaded.model.catalogue.vectors  # [n_items, V], unit length, row 0 is padding
tokens = loaded.dataset.field2id_token["item_id"]
cosines = vectors[1:] @ vectors[1]
for row in cosines.topk(5).indices.tolist():
    token = tokens[row + 1]
    print(f"{cosines[row]:.2f}  {token}  {titles.get(token, '')}")

# %% [markdown]
# ## Similarity buckets
#
# Self-attention scales a value by an embedding of the bucketed cosine of two items (Eq. 15).
# Where pairs of random items lie says how much room the buckets leave.

# %%
generator = torch.Generator().manual_seed(0)
pairs = torch.randint(1, len(vectors), (500, 2), generator=generator)
buckets = similarity_buckets(vectors[pairs], 100)[:, 0, 1]
figure, axes = plt.subplots(figsize=(7, 2.5))
axes.hist(buckets.numpy(), bins=range(0, 102, 2))
axes.set(xlabel="bucket: 0 opposite, 50 unrelated, 100 equal", ylabel="pairs")
figure.savefig("buckets.png")
