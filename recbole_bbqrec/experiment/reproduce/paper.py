"""The paper's printed figures, from ``paper.yaml`` beside this file."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from recbole_bbqrec.config.values import read_yaml

DATASETS = ("Beauty", "Sports", "Clothing", "Toys")
METRICS = ("recall@5", "recall@10", "ndcg@5", "ndcg@10")  # the order of tables 2 to 4


@lru_cache(maxsize=1)
def figures() -> dict[str, Any]:
    """The file's content by table and figure."""
    return read_yaml(Path(__file__).with_name("paper.yaml"))


def metric(table: str, dataset: str, label: str, name: str) -> float | None:
    """A metric of tables 2 to 4, or None where the paper has none."""
    row = figures()[table].get(dataset, {}).get(label)
    return row[METRICS.index(name)] if row and name in METRICS else None


def has(table: str, dataset: str) -> bool:
    """Whether the paper's table or figure is of the data set."""
    of = {"figure3": ("Beauty",), "figure4": DATASETS}  # charts: of what, not how much
    return dataset in of.get(table, figures().get(table, ()))


def notes(table: str, dataset: str) -> list[str]:
    """What a reader must know of the paper's figures for one data set."""
    found = figures()["notes"].get(table, {})
    return [found[key] for key in ("", dataset) if key in found]
