"""Evaluation of all users: ranked ids against RecBole's score matrix, on the same scores.

The scores (20 per user, as a beam returns them) are drawn beforehand; what is timed is all that
lies between them and the metrics. RecBole's path scatters them into [B, n_items], as its Trainer
expects of ``full_sort_predict``, and lets its Collector find the top again; "scores" is the same
with our collector for models that score all items. Each path runs in a process of its own. The
metrics of all must be equal.

    python benchmarks/evaluate.py --data-path <folder that holds Beauty/> [--small]
"""

from __future__ import annotations

import argparse
from typing import Any

import common
import torch
from recbole.evaluator import Collector, Evaluator

from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.metrics.collector import RankedCollector, ScoresCollector

WIDTH = 20
COLLECTORS = {"matrix": Collector, "scores": ScoresCollector, "ranked": RankedCollector}


def measure(options: argparse.Namespace, path: str) -> tuple[float, float, dict[str, Any]]:
    """Seconds, MiB and metrics of one path."""
    common.start(options)
    events, n_items, _ = common.load_events(options)
    targets = common.test_histories(events)[2]
    config = BBQRecConfig("BBQRec", "Beauty", overrides={"eval_batch_size": 2048})
    size = config["eval_batch_size"]
    ids = torch.stack([torch.randperm(n_items - 1)[:WIDTH] + 1 for _ in range(len(targets))])
    held = (ids == targets[:, None]).any(1)  # a beam never names an item twice
    hit = (torch.rand(len(targets)) < 0.1) & ~held  # about Beauty's recall
    ids[hit, torch.randint(0, 10, (int(hit.sum()),))] = targets[hit]
    scores = torch.randn(len(targets), WIDTH).sort(1, descending=True).values
    evaluator = Evaluator(config)

    def ranked(collector: Any, rows: slice) -> None:
        users = torch.arange(len(targets[rows]))
        collector.eval_batch_collect(ids[rows], None, users, targets[rows])

    def matrix(collector: Any, rows: slice) -> None:
        users = torch.arange(len(targets[rows]))
        full = torch.full((len(users), n_items), -torch.inf).scatter_(1, ids[rows], scores[rows])
        full[:, 0] = -torch.inf  # as RecBole's Trainer does
        collector.eval_batch_collect(full, None, users, targets[rows])

    def evaluate() -> dict[str, Any]:
        collector = COLLECTORS[path](config)
        collect = ranked if path == "ranked" else matrix
        for begin in range(0, len(targets), size):
            collect(collector, slice(begin, begin + size))
        return dict(evaluator.evaluate(collector.get_data_struct()))

    metrics, memory = common.peak_growth(evaluate)
    seconds = common.seconds(evaluate, 3, 0)
    common.top_operators(path, evaluate, 6)
    return seconds, memory, metrics


def main() -> None:
    options = common.arguments(__doc__)
    common.heading("Evaluation", options, common.load_events(options)[2])
    found = {path: common.in_child(measure, options, path) for path in COLLECTORS}
    if any(metrics != found["matrix"][2] for _, _, metrics in found.values()):
        raise SystemExit(f"the metrics differ: {found}")
    reference = found["matrix"]
    common.table(
        ("path", "s", "x less time", "MiB", "x less memory"),
        [
            (name, seconds, reference[0] / seconds, memory, reference[1] / max(memory, 0.1))
            for name, (seconds, memory, _) in found.items()
        ],
    )
    print("Equal metrics:", {name: float(value) for name, value in found["ranked"][2].items()})


if __name__ == "__main__":
    main()
