# %% [markdown]
# # Compare models for a paper
#
# `compare` runs what is missing, tests the first model against the others over the users, and
# writes the table as Markdown, LaTeX and CSV. The two models here learn nothing, so that this
# takes seconds; name yours in their place, and give `--seeds=3`.

# %%
from pathlib import Path

from recbole_bbqrec.cli.main import main

data = next(p for p in (Path("dataset"), Path("../../dataset")) if (p / "Mini").is_dir())
main([
    "compare", "--models=ItemNeighbours,STAR", "--datasets=Mini", f"--data_path={data.resolve()}",
    "--protocol=next_day",
])  # fmt: skip

# %% [markdown]
# The protocol `next_day` asks for an item of a later day than everything in the history.
# Leave-one-out, the default, keeps the order of the file within a day: see
# [Protocols](protocols.md).
#
# ## The table for the paper

# %%
print(Path("comparison/table.tex").read_text(encoding="utf-8"))

# %% [markdown]
# ## The tests behind it
#
# One row for each other model and metric: the mean difference over the users, and the p-values of
# a paired t-test and a Wilcoxon test, corrected for the number of models (Holm).

# %%
import pandas as pd  # noqa: E402

tests = pd.read_csv("comparison/significance.csv")
print(tests[["metric", "target", "baseline", "improvement", "p_t_test_holm"]])
