"""The paper's printed values, from ``paper.yaml`` beside this file."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from recbole_bbqrec.config.values import read_yaml

DATASETS = ("Beauty", "Sports", "Clothing", "Toys")
METRICS = ("recall@5", "recall@10", "ndcg@5", "ndcg@10")  # the order of tables 2 to 4


@lru_cache(maxsize=1)
def figures() -> dict[str, Any]:
    """Return the file's content by table and figure."""
    return read_yaml(Path(__file__).with_name("paper.yaml"))


def metric(table: str, dataset: str, label: str, name: str) -> float | None:
    """Return a metric of tables 2 to 4, or None if the paper has none."""
    row = figures()[table].get(dataset, {}).get(label)
    return row[METRICS.index(name)] if row and name in METRICS else None


def has(table: str, dataset: str) -> bool:
    """Return True if the paper's table or figure includes the data set."""
    charts = {"figure3": ("Beauty",), "figure4": DATASETS}  # without printed values
    return dataset in charts.get(table, figures().get(table, ()))


def notes(table: str, dataset: str) -> list[str]:
    """Return notes on the paper's values for a data set."""
    texts = figures()["notes"].get(table, {})
    return [texts[key] for key in ("", dataset) if key in texts]
