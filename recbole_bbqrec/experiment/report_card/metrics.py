"""Ranking metrics of each user, computed from the rank of the one held-out item.

With a single relevant item RecBole's definitions reduce to functions of its rank r: a hit where
r <= k; NDCG 1 / log2(r + 1); MRR and MAP 1 / r; precision 1 / k.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Callable

import numpy as np
from torch import Tensor

PerUser = dict[str, np.ndarray]  # metric such as "recall@10" -> float64 [n]

_OF_RANK: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "recall": lambda ranks, k: np.ones_like(ranks),
    "hit": lambda ranks, k: np.ones_like(ranks),
    "ndcg": lambda ranks, k: 1 / np.log2(ranks + 1),
    "mrr": lambda ranks, k: 1 / ranks,
    "map": lambda ranks, k: 1 / ranks,
    "precision": lambda ranks, k: np.full_like(ranks, 1 / k),
}


def ranks(items: Tensor, targets: Tensor) -> np.ndarray:
    """Place of each target in its list, from 1; 0 where it is not there.

    ``items`` int64 [n, K], ``targets`` int64 [n] -> int64 [n].
    """
    return first_match(items == targets.unsqueeze(1))


def first_match(match: Tensor) -> np.ndarray:
    """Place, from 1, of the first True of each row of ``match`` bool [n, K]; 0 where none is."""
    found, place = match.any(1), match.int().argmax(1) + 1
    return (place * found).numpy()


def per_user(rank: np.ndarray, names: Iterable[str], topk: Iterable[int]) -> PerUser:
    """Each metric at each cut-off of every user, in RecBole's order: rank int64 [n].

    Metrics that do not follow from the rank of one item are left out.
    """
    values: PerUser = {}
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


def means(values: PerUser) -> dict[str, float]:
    """Mean of each metric over the users."""
    return {name: float(value.mean()) for name, value in values.items()}


def summary(values: Mapping[str, np.ndarray], rows: np.ndarray) -> dict[str, Any]:
    """Means of some users, bool [n], with the half-width of their 95 % interval.

    The interval is the normal one. There is none where all users have the same value, all misses
    for example: it would have no width, which says nothing of the next users.
    """
    count = int(rows.sum())
    chosen = {name: value[rows] for name, value in values.items()} if count else {}
    half = {
        name: 1.96 * float(value.std(ddof=1)) / math.sqrt(count)
        for name, value in chosen.items()
        if value.min() < value.max()
    }
    return {"users": count, "metrics": means(chosen), "half_width_95": half}
