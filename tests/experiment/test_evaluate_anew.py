"""Runs that differ in how they are measured: trained once, with the metrics of a run of its own."""

from __future__ import annotations

import json

import numpy as np
import pytest

from recbole_bbqrec.experiment.comparison.plan import plan_lines
from recbole_bbqrec.experiment.evaluate.evaluation import evaluate
from recbole_bbqrec.experiment.evaluate.jobs import find_jobs
from recbole_bbqrec.experiment.store import worker
from recbole_bbqrec.experiment.store.launch import OneAfterAnother
from recbole_bbqrec.experiment.store.store import Run, RunStore
from tests.support.runs import ROOT, TINY

GRU = {"data_path": str(ROOT / "dataset"), "embedding_size": 16, "hidden_size": 16, "epochs": 2,
       "train_batch_size": 512, "num_threads": 1, "show_progress": False}  # fmt: skip
TIGER = {**TINY, "num_threads": 1, "cooccurrence_weight": 0.0, "feature_similarity_weight": 0.0}
MEASURED_OTHERWISE = {"topk": [3, 10, 15], "metrics": ["Recall", "NDCG", "ItemCoverage"],
                      "eval_batch_size": 100}  # fmt: skip


@pytest.fixture
def trainings(monkeypatch):
    """Runs are made in this process; the list of those that were trained."""
    trained, train = [], worker.run

    def counted(model, *args, **settings):
        trained.append(model)
        return train(model, *args, **settings)

    def process(self, directory, stop):
        monkeypatch.chdir(directory)
        worker.work(directory)
        return 0

    monkeypatch.setattr(worker, "run", counted)
    monkeypatch.setattr(OneAfterAnother, "_process", process)
    return trained


def run_of(model, options, **more):
    return Run(model, "Mini", {**options, **more}, seed=2020)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "options"), [("GRU4Rec", GRU), ("TIGER", TIGER)])
def test_other_measures_of_a_training_are_evaluated(tmp_path, trainings, model, options):
    store = RunStore(tmp_path / "runs", echo=lambda line: None)
    first = store.ensure([run_of(model, options)])[0]
    other = run_of(model, options, **MEASURED_OTHERWISE)
    lines, missing = plan_lines(store, [store.plan(other)])
    assert missing == 1 and "0 to run, 1 trained, to evaluate anew" in lines[0]
    (again,) = store.ensure([other])
    assert trainings == [model] and again.result["evaluated_from"] == first.directory.name
    (alone,) = RunStore(tmp_path / "others", echo=lambda line: None).ensure([other])
    assert trainings == [model, model]
    for name in ("test_result", "best_valid_result", "best_valid_score", "by_target", "split"):
        assert again.result[name] == alone.result[name], name
    assert {"recall@3", "itemcoverage@15"} <= set(again.metrics) and "recall@5" not in again.metrics
    assert np.array_equal(again.users.rank, alone.users.rank)
    assert plan_lines(store, [store.plan(other)])[1] == 0

    # A whole run: it can be evaluated in its turn, and is what the next measures start from.
    kept, made = (
        {path.name for path in (each.directory / "saved").glob("*/*")} for each in (again, alone)
    )
    assert made - {"lock"} <= kept
    (job,) = find_jobs([again.directory], {}, "test")
    assert evaluate(job, "test").metrics == again.metrics
    assert (
        store.ensure([run_of(model, options, topk=[10, 15])])[0].metrics["ndcg@15"]
        == (again.metrics["ndcg@15"])
    )
    assert trainings == [model, model]


def planned(tmp_path, options=None, **more):
    return RunStore(tmp_path / "runs").plan(run_of("GRU4Rec", options or GRU, **more))


@pytest.mark.parametrize(
    ("more", "same"),
    [
        ({"topk": [10]}, True),
        ({"metrics": ["NDCG"]}, True),
        ({"valid_metric": "Recall@5"}, False),
        ({"mask_history": True}, False),  # validation masks, too
        ({"eval_step": 0, "mask_history": True}, False),
        ({"metric_decimal_place": 3}, False),
        ({"stopping_step": 3}, False),
        ({"dropout_prob": 0.0}, False),
    ],
)
def test_what_a_training_is(tmp_path, more, same):
    assert (planned(tmp_path).training == planned(tmp_path, **more).training) is same


def test_without_validation_more_options_only_measure(tmp_path):
    blind = {**GRU, "eval_step": 0}
    masked = planned(tmp_path, blind, mask_history=True)
    assert masked.training == planned(tmp_path, blind).training
    sampled = {"eval_args": {"mode": "uni100"}}
    assert planned(tmp_path, **sampled).training == ""  # candidates are drawn in the run
    assert RunStore(tmp_path / "runs").trained(planned(tmp_path, **sampled)) is None


@pytest.mark.slow
def test_a_damaged_training_is_made_again(tmp_path, trainings):
    store = RunStore(tmp_path / "runs", echo=lambda line: None)
    first = store.ensure([run_of("GRU4Rec", GRU)])[0]
    first.file("model").write_bytes(b"damaged")
    again = store.ensure([run_of("GRU4Rec", GRU, topk=[10])])[0]
    assert again.finished and trainings == ["GRU4Rec", "GRU4Rec"]
    assert again.metrics["ndcg@10"] == first.metrics["ndcg@10"]
    plan = json.loads((first.directory / worker.PLAN).read_text())
    (first.directory / worker.PLAN).write_text(json.dumps({**plan, "key": None}))
    assert store.trained(store.plan(run_of("GRU4Rec", GRU, topk=[15, 10]))) == again.directory
