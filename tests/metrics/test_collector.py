"""Both collectors give RecBole's evaluator the same data as RecBole's own collector."""

from __future__ import annotations

import pytest
import torch
from recbole.evaluator import Collector, Evaluator

from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.metrics.collector import RankedCollector, ScoresCollector, best_items
from recbole_bbqrec.quick_start import run
from tests.support.counting import check_counted

METRICS = ["Recall", "NDCG", "Hit", "MRR", "Precision", "MAP"]
COUNTING = ["ItemCoverage", "AveragePopularity", "ShannonEntropy", "GiniIndex", "TailPercentage"]


def test_same_metrics_as_the_score_matrix(tiny):
    config = BBQRecConfig("BBQRec", "Mini", overrides={**tiny, "metrics": METRICS})
    torch.manual_seed(3)
    ranked, matrix = RankedCollector(config), Collector(config)
    for users in (50, 7):
        scores = torch.randn(users, 30)
        scores[:, 0] = -torch.inf
        rows, targets = torch.arange(users), torch.randint(1, 30, (users,))
        matrix.eval_batch_collect(scores, None, rows, targets)
        ranked.eval_batch_collect(scores.topk(12).indices, None, rows, targets)
    evaluator = Evaluator(config)
    expected = evaluator.evaluate(matrix.get_data_struct())
    assert evaluator.evaluate(ranked.get_data_struct()) == expected
    assert 0 < expected["recall@10"] < 1


def scores_with(kind: str, shape: tuple[int, int]) -> torch.Tensor:
    scores = torch.randn(shape, generator=torch.manual_seed(5))
    if kind == "ties":
        scores = (4 * scores).round()
    if kind == "nearly all masked":
        scores[:, 4:] = -torch.inf
    return scores


@pytest.mark.parametrize("kind", ["distinct", "ties", "nearly all masked"])
@pytest.mark.parametrize(("shape", "k"), [((40, 3000), 10), ((9, 40), 20), ((3, 12), 12)])
def test_best_items_are_those_of_topk(kind, shape, k):
    scores = scores_with(kind, shape)
    assert torch.equal(best_items(scores, k), scores.topk(k, dim=1).indices)


@pytest.mark.parametrize("metrics", [METRICS, [*METRICS, "ShannonEntropy"], ["Recall", "GAUC"]])
@pytest.mark.parametrize("kind", ["distinct", "ties", "nearly all masked"])
def test_scores_are_collected_as_by_recbole(metrics, kind):
    options = {"metrics": metrics, "valid_metric": "Recall@10"}
    config = BBQRecConfig("SASRec", "Mini", overrides=options)
    ours, recbole = ScoresCollector(config), Collector(config)
    for users in (50, 7):
        scores = scores_with(kind, (users, 2000))
        rows, targets = torch.arange(users), scores.topk(20).indices[:, users % 20]
        for collector in (ours, recbole):
            collector.eval_batch_collect(scores.clone(), None, rows, targets)
    evaluator = Evaluator(config)
    expected = evaluator.evaluate(recbole.get_data_struct())
    assert evaluator.evaluate(ours.get_data_struct()) == expected


def test_metrics_that_need_all_scores_are_refused(tiny):
    overrides = {**tiny, "metrics": ["GAUC"], "valid_metric": "GAUC"}
    config = BBQRecConfig("BBQRec", "Mini", overrides=overrides)
    with pytest.raises(UserError, match="metrics"):
        RankedCollector(config)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["GRU4Rec", "ESASRec", "BBQRec"])
def test_metrics_that_count_in_the_training_data(rundir, tiny, model):
    """A whole run, judged by one of them, for every kind of trainer."""
    keys = ("data_path", "show_progress", "state", "train_batch_size", "hidden_size")
    options = tiny if model == "BBQRec" else {key: tiny[key] for key in keys}
    counting = {"metrics": ["Recall", *COUNTING], "topk": [3], "valid_metric": "ItemCoverage@3"}
    result = run(model, "Mini", overrides={**options, "epochs": 1, **counting})
    assert result["best_valid_score"] == result["best_valid_result"]["itemcoverage@3"] > 0
    metrics = result["test_result"]
    assert metrics.keys() == {f"{name.lower()}@3" for name in ("Recall", *COUNTING)}
    check_counted(metrics, result["files"]["model"])
    assert 0 < metrics["giniindex@3"] < 1 and 0 <= metrics["tailpercentage@3"] <= 1
