"""Dependence of results on more than the options: batches, threads, and the order of the files.

Each row compares the test metrics and each user's rank of the true item with those of a plain run
on Mini, users matched by their tokens. `--n` is the number of models. `run`: trained again under
the change; `evaluate`: the same weights, evaluated under it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import numpy as np
import pandas as pd

from recbole_bbqrec.experiment.evaluate.evaluation import evaluate
from recbole_bbqrec.experiment.evaluate.jobs import find_jobs
from recbole_bbqrec.quick_start import run
from recbole_bbqrec.run_files.per_user import PerUser

SMALL = {"epochs": 3, "hidden_size": 32, "inner_size": 64, "train_batch_size": 256,
         "num_threads": 1, "show_progress": False, "state": "ERROR"}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    "ItemNeighbours": {"num_threads": 1, "show_progress": False, "state": "ERROR"},
    "SASRec": SMALL,
    "BBQRec": {**common.TINY, "state": "ERROR"},
    "ESASRec": SMALL,
}


def users_shuffled(folder: Path, rng: np.random.Generator) -> None:
    """Put the users of the file into another order; each keeps the order of the events."""
    path = folder / "Mini.inter"
    rows = pd.read_csv(path, sep="\t", dtype=str)
    user = rows.columns[0]
    place = dict(zip(rows[user].unique(), rng.permutation(rows[user].nunique())))
    order = rows[user].map(place).argsort(kind="stable")
    rows.iloc[order].to_csv(path, sep="\t", index=False)


def events_shuffled(folder: Path, rng: np.random.Generator) -> None:
    """Put all lines into another order; times order a user's events, and ties are broken anew."""
    header, *lines = (folder / "Mini.inter").read_text(encoding="utf-8").splitlines()
    lines = [lines[n] for n in rng.permutation(len(lines))]
    (folder / "Mini.inter").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")


def features_shuffled(folder: Path, rng: np.random.Generator) -> None:
    """Put the rows of every matrix, and its list of items, into another order."""
    for matrix in folder.glob("Mini.*.npy"):
        items = matrix.with_suffix(".items.txt")
        tokens = items.read_text(encoding="utf-8").splitlines()
        order = rng.permutation(len(tokens))
        np.save(matrix, np.load(matrix)[order])
        items.write_text("\n".join(tokens[n] for n in order) + "\n", encoding="utf-8")


FILES: dict[str, Callable[[Path, np.random.Generator], None]] = {
    "run, rows of the features": features_shuffled,
    "run, order of the users": users_shuffled,
    "run, order of all events": events_shuffled,
}


def data_of(root: Path, change: Callable[..., None] | None, seed: int) -> Path:
    """Return a folder of data sets with a copy of Mini; a change makes its checksums stale."""
    folder = root / "Mini"
    shutil.copytree(common.ROOT / "dataset" / "Mini", folder)
    if change is not None:
        change(folder, np.random.default_rng(seed))
        for name in ("Mini.features.yaml", "Mini.prepared.yaml"):
            (folder / name).unlink(missing_ok=True)
    return root


def ranks(users: PerUser) -> dict[str, int]:
    return dict(zip(users.users.tolist(), users.rank.tolist()))


def row(model: str, what: str, plain: Any, other: Any) -> str:
    """Compare (metrics, ranks) of two runs."""
    largest = max(abs(plain[0][name] - other[0][name]) for name in plain[0])
    moved = sum(rank != other[1].get(user) for user, rank in plain[1].items())
    same = "yes" if largest == 0 and moved == 0 else "no"
    return f"| {model:<14} | {what:<26} | {same:<4} | {largest:10.6f} | {moved:>5} |"


def trained(model: str, data: Path, options: dict[str, Any]) -> tuple[Path, Any]:
    result = run(model, "Mini", overrides={**options, "data_path": str(data)})
    users = PerUser.load(result["files"]["per_user"])
    return Path(result["files"]["model"]), (result["test_result"], ranks(users))


def evaluated(path: Path, **options: Any) -> Any:
    (job,) = find_jobs([path], options, "test")
    found = evaluate(job, "test")
    assert found.users is not None
    return found.metrics, ranks(found.users)


def main() -> None:
    options = common.arguments(__doc__, n=len(MODELS), small=1)
    folder = options.output or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    print(common.machine())
    print(f"| {'model':<14} | {'what differs':<26} | same | metrics by | users |")
    print("|---|---|---|---:|---:|")
    plain_data = data_of(folder / "plain", None, options.seed)
    for model, settings in list(MODELS.items())[: options.n]:
        path, plain = trained(model, plain_data, settings)
        for size in (1, 7, 100, 4096):
            other = evaluated(path, eval_batch_size=size)
            print(row(model, f"evaluate, {size} users at once", plain, other), flush=True)
        print(row(model, "evaluate, 2 threads", plain, evaluated(path, num_threads=2)), flush=True)
        _, other = trained(model, plain_data, settings)
        print(row(model, "run, again", plain, other), flush=True)
        _, other = trained(model, plain_data, {**settings, "num_threads": 2})
        print(row(model, "run, 2 threads", plain, other), flush=True)
        for number, (what, change) in enumerate(FILES.items()):
            data = data_of(folder / f"{model}-{number}", change, options.seed)
            print(row(model, what, plain, trained(model, data, settings)[1]), flush=True)
        _, other = trained(model, plain_data, {**settings, "seed": 1})
        print(row(model, "run, another seed", plain, other), flush=True)


if __name__ == "__main__":
    main()
