"""Test metrics by history length and by item popularity; cold items."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from recbole_bbqrec.data.histories import Histories
from recbole_bbqrec.experiment.report_card.ranking import Ranking
from recbole_bbqrec.metrics.groups import target_groups
from recbole_bbqrec.metrics.per_user_values import summary

_LENGTHS = (4, 6, 9, 14, 19, 29, 49, 99)  # upper ends of the buckets of history length
_QUANTILES = (0.25, 0.5, 0.75)  # of the training counts above 0


def training_counts(train_data: Any, n_items: int) -> np.ndarray:
    """Count the occurrences of each item in training, as history or target: int64 [n_items]."""
    histories = Histories.from_training_data(train_data._dataset)
    return np.bincount(histories.items.numpy(), minlength=n_items)


def by_history_length(
    ranking: Ranking, values: Mapping[str, np.ndarray], longest: int
) -> list[dict[str, Any]]:
    """Return an entry per bucket that has users, shortest histories first.

    ``longest`` is MAX_ITEM_LIST_LENGTH; the last bucket holds the histories cut to it.
    """
    lengths = ranking.lengths.numpy()
    ends = [end for end in _LENGTHS if end < longest - 1] + [longest - 1, longest]
    entries, low = [], 1
    for high in ends:
        rows = (lengths >= low) & (lengths <= high)
        if rows.any():
            entries.append({"from": low, "to": high, **summary(values, rows)})
        low = high + 1
    return entries


def popularity_buckets(counts: np.ndarray) -> list[tuple[int, int]]:
    """Return ranges (from, to) of training counts: (0, 0) if needed, and quarters of the rest.

    ``counts`` int64 [n_items], [PAD] first. Items with the same count share a bucket, so many ties
    make fewer than four.
    """
    known = counts[1:]
    warm = known[known > 0]
    buckets = [(0, 0)] if (known == 0).any() else []
    if len(warm):
        ends = np.quantile(warm, _QUANTILES, method="lower").tolist()
        low = 1
        for high in sorted({*ends, int(warm.max())}):
            buckets.append((low, int(high)))
            low = int(high) + 1
    return buckets


def by_popularity(
    ranking: Ranking, values: Mapping[str, np.ndarray], counts: np.ndarray
) -> list[dict[str, Any]]:
    """Return an entry per bucket of the next item's training count, rarest first.

    Each has metrics and the bucket's share of the catalogue, of the next items, and of the places
    in the recommended lists.
    """
    target, listed = counts[ranking.targets.numpy()], counts[ranking.items.numpy()]
    entries = []
    for low, high in popularity_buckets(counts):
        rows = (target >= low) & (target <= high)
        items = (counts[1:] >= low) & (counts[1:] <= high)
        entries.append(
            {
                "from": low,
                "to": high,
                "items": int(items.sum()),
                "share_of_items": _share(items),
                "share_of_targets": _share(rows),
                "share_of_recommendations": _share((listed >= low) & (listed <= high)),
                **summary(values, rows),
            }
        )
    return entries


def by_target(
    values: Mapping[str, np.ndarray], targets: Mapping[str, np.ndarray]
) -> list[dict[str, Any]]:
    """Return an entry per kind of targets, by distance in time and by what training saw."""
    return [
        {"label": name, **summary(values, rows)} for name, rows in target_groups(targets).items()
    ]


def cold_items(ranking: Ranking, counts: np.ndarray) -> dict[str, Any]:
    """Count the items without training events, and the share of items ever recommended."""
    cold = counts == 0
    cold[0] = False
    recommended = np.unique(ranking.items.numpy())
    recommended = recommended[recommended > 0]
    return {
        "items": len(counts) - 1,
        "cold_items": int(cold.sum()),
        "share_of_items": float(cold[1:].mean()),
        "share_of_targets": _share(cold[ranking.targets.numpy()]),
        "share_of_recommendations": _share(cold[ranking.items.numpy()]),
        "recommended_items": len(recommended),
        "coverage": len(recommended) / (len(counts) - 1),
    }


def _share(mask: np.ndarray) -> float:
    return float(mask.mean()) if mask.size else 0.0
