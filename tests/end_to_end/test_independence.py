"""Independence of results; `trials/independence.py` has figures, also of what does matter."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from recbole_bbqrec.experiment.evaluate.evaluation import evaluate
from recbole_bbqrec.experiment.evaluate.jobs import find_jobs
from recbole_bbqrec.quick_start import load_run, run
from recbole_bbqrec.run_files.per_user import PerUser
from tests.support.runs import ROOT, TINY

SMALL = {"epochs": 1, "hidden_size": 16, "inner_size": 16, "train_batch_size": 512,
         "num_threads": 1, "show_progress": False, "state": "ERROR"}  # fmt: skip
OPTIONS = {"BBQRec": {**TINY, "num_threads": 1, "epochs": 1}, "ESASRec": SMALL, "SASRec": SMALL,
           "ItemNeighbours": {"num_threads": 1, "state": "ERROR"}}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A finished run of each model, made when it is first asked for."""
    folder, made = tmp_path_factory.mktemp("runs"), {}

    def of(model):
        if model not in made:
            made[model] = trained(model, ROOT / "dataset", folder)
        return made[model]

    return of


def trained(model, data_path, folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = run(model, "Mini", overrides={**OPTIONS[model], "data_path": str(data_path)})
    result["files"] = {name: folder / path for name, path in result["files"].items()}
    return result


def ranks(users):
    return dict(zip(users.users.tolist(), users.rank.tolist()))


def changed_data(tmp_path, change):
    folder = tmp_path / "data" / "Mini"
    shutil.copytree(ROOT / "dataset" / "Mini", folder)
    change(folder, np.random.default_rng(4))
    (folder / "Mini.features.yaml").unlink()  # it has the checksums
    return folder.parent


def shuffle_features(folder, rng):
    for matrix in folder.glob("Mini.*.npy"):
        items = Path(f"{matrix}".replace(".npy", ".items.txt"))
        tokens = items.read_text().split()
        order = rng.permutation(len(tokens))
        np.save(matrix, np.load(matrix)[order])
        items.write_text("\n".join(tokens[n] for n in order) + "\n")


def shuffle_users(folder, rng):
    """The users change places; the events of each keep their order."""
    rows = pd.read_csv(folder / "Mini.inter", sep="\t", dtype=str)
    user = rows.columns[0]
    place = dict(zip(rows[user].unique(), rng.permutation(rows[user].nunique())))
    rows = rows.iloc[rows[user].map(place).argsort(kind="stable")]
    rows.to_csv(folder / "Mini.inter", sep="\t", index=False)


@pytest.mark.slow
@pytest.mark.parametrize("model", list(OPTIONS))
def test_users_ranked_together_and_threads_do_not_matter(model, runs):
    done = runs(model)
    plain = ranks(PerUser.load(done["files"]["per_user"]))
    for options in ({"eval_batch_size": 5}, {"eval_batch_size": 97}, {"num_threads": 2}):
        (job,) = find_jobs([done["files"]["model"]], options, "test")
        found = evaluate(job, "test")
        assert ranks(found.users) == plain, options
        assert found.metrics == done["test_result"], options


@pytest.mark.slow
@pytest.mark.parametrize("model", ["BBQRec", "SASRec"])
def test_the_order_of_a_request_does_not_matter(model, runs):
    loaded = load_run(runs(model)["files"]["model"])
    users = [str(user) for user in loaded.dataset.field2id_token["user_id"][1:80]]
    first = loaded.recommend(users=users, k=5)
    other = loaded.recommend(users=users[::-1], k=5)
    by_user = {user: rows["item"].tolist() for user, rows in other.groupby("user")}
    for user, rows in first.groupby("user"):
        assert rows["item"].tolist() == by_user[user]


@pytest.mark.slow
def test_the_order_of_the_rows_of_features_does_not_matter(tmp_path, runs):
    plain = runs("BBQRec")
    other = trained("BBQRec", changed_data(tmp_path, shuffle_features), tmp_path)
    assert other["test_result"] == plain["test_result"]
    weights = [
        torch.load(each["files"]["model"], weights_only=True)["state_dict"]
        for each in (plain, other)
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.slow
def test_the_order_of_the_users_matters_to_no_model_without_training(tmp_path, runs):
    """A trained model begins with other numbers for users and items, as with another seed."""
    plain = runs("ItemNeighbours")
    other = trained("ItemNeighbours", changed_data(tmp_path, shuffle_users), tmp_path)
    assert other["split_hash"] == plain["split_hash"]
    assert other["test_result"] == plain["test_result"]
    first, second = (PerUser.load(each["files"]["per_user"]) for each in (plain, other))
    assert ranks(first) == ranks(second)
