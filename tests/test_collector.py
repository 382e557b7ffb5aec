"""Ranked ids through RecBole's evaluator equal a score matrix through RecBole's collector."""

from __future__ import annotations

import pytest
import torch
from recbole.evaluator import Collector, Evaluator

from recbole_bbqrec.config import BBQRecConfig
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.trainer.collector import RankedCollector

METRICS = ["Recall", "NDCG", "Hit", "MRR", "Precision", "MAP"]


def test_same_metrics_as_the_score_matrix(tiny):
    config = BBQRecConfig("BBQRec", "Mini", overrides={**tiny, "metrics": METRICS})
    torch.manual_seed(3)
    ranked, matrix = RankedCollector(config), Collector(config)
    for users in (50, 7):
        scores = torch.randn(users, 30)
        scores[:, 0] = -torch.inf
        rows, wanted = torch.arange(users), torch.randint(1, 30, (users,))
        matrix.eval_batch_collect(scores, None, rows, wanted)
        ranked.eval_batch_collect(scores.topk(12).indices, None, rows, wanted)
    evaluator = Evaluator(config)
    expected = evaluator.evaluate(matrix.get_data_struct())
    found = evaluator.evaluate(ranked.get_data_struct())
    assert found == expected
    assert 0 < expected["recall@10"] < 1


def test_metrics_that_need_all_scores_are_refused(tiny):
    overrides = {**tiny, "metrics": ["GAUC"], "valid_metric": "GAUC"}
    config = BBQRecConfig("BBQRec", "Mini", overrides=overrides)
    with pytest.raises(UserError, match="metrics"):
        RankedCollector(config)
