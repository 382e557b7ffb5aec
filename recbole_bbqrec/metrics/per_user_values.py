"""Metrics of each user, from the rank of the one item held out.

With a single relevant item RecBole's definitions are functions of its rank r: a hit if r <= k;
NDCG 1 / log2(r + 1); MRR and MAP 1 / r; precision 1 / k.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Callable

import numpy as np
from torch import Tensor

UserValues = dict[str, np.ndarray]  # metric such as "recall@10" -> float64 [n]

_OF_RANK: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "recall": lambda ranks, k: np.ones_like(ranks),
    "hit": lambda ranks, k: np.ones_like(ranks),
    "ndcg": lambda ranks, k: 1 / np.log2(ranks + 1),
    "mrr": lambda ranks, k: 1 / ranks,
    "map": lambda ranks, k: 1 / ranks,
    "precision": lambda ranks, k: np.full_like(ranks, 1 / k),
}


def ranks(items: Tensor, targets: Tensor) -> np.ndarray:
    """Return the place of each target in its list, from 1; 0 if it is not listed.

    ``items`` int64 [n, K], ``targets`` int64 [n] -> int64 [n].
    """
    return first_match(items == targets.unsqueeze(1))


def first_match(match: Tensor) -> np.ndarray:
    """Return the place, from 1, of each row's first True, or 0: bool [n, K] -> int64 [n]."""
    return ((match.int().argmax(1) + 1) * match.any(1)).numpy()


def user_values(rank: np.ndarray, names: Iterable[str], topk: Iterable[int]) -> UserValues:
    """Return each metric at each cut-off for every user, in RecBole's order: rank int64 [n].

    Metrics that do not follow from the rank of one item are left out.
    """
    values: UserValues = {}
    cut_offs = list(topk)
    for name in (name.lower() for name in names):
        if name not in _OF_RANK:
            continue
        for k in cut_offs:
            hit = (rank > 0) & (rank <= k)
            value = np.zeros(len(rank))
            value[hit] = _OF_RANK[name](rank[hit].astype(np.float64), k)
            values[f"{name}@{k}"] = value
    return values


def means(values: UserValues) -> dict[str, float]:
    """Return the mean of each metric over the users."""
    return {name: float(value.mean()) for name, value in values.items()}


def summary(values: Mapping[str, np.ndarray], rows: np.ndarray) -> dict[str, Any]:
    """Return means over the users ``rows``, bool [n], and half-widths of their 95 % intervals.

    The interval is the normal one. It is omitted if all users have the same value, such as all
    misses: its width would be 0, which says nothing about other users.
    """
    count = int(rows.sum())
    chosen = {name: value[rows] for name, value in values.items()} if count else {}
    half = {
        name: 1.96 * float(value.std(ddof=1)) / math.sqrt(count)
        for name, value in chosen.items()
        if value.min() < value.max()
    }
    return {"users": count, "metrics": means(chosen), "half_width_95": half}
