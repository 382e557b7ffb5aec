"""Descriptions of held-out targets: gap in time, same day, seen transition, cold item."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from recbole_bbqrec.data.histories import Histories
from recbole_bbqrec.data.layout.prefix_rows import PrefixRows
from recbole_bbqrec.data.protocol.events import Events

_USERS = 1 << 18  # whose transitions are looked at together

Targets = Mapping[str, np.ndarray]


def describe_targets(part: Any, train: Any, events: Events | None) -> Targets:
    """Describe the target of each row of ``part``, a part of a built data set.

    Args:
        part: the part for validation or test.
        train: the part for training.
        events: the events that ``part.event_index`` counts; None if there are no times.

    Returns:
        ``memorized``: bool [n_rows], the target follows the last item of the history somewhere in
        training; ``cold``: bool [n_rows], the target is in no training history. With times also
        ``gap_days``, float32 [n_rows], days between the history's last item and the target (NaN:
        unknown), and ``same_day``, bool [n_rows].
    """
    target = part.inter_feat[part.iid_field].numpy().astype(np.int64)
    histories = Histories.from_training_data(train)
    described = {
        "memorized": _follows_in_training(_last_items(part), target, histories, part.item_num),
        "cold": ~histories.trained_items(part.item_num).numpy()[target],
    }
    index = getattr(part, "event_index", None)
    if events is None or index is None:
        return described
    time, before = events.times[index], events.times[index - 1]
    if not np.isnan(time).all():
        described["gap_days"] = ((time - before) / events.day_length).astype(np.float32)
        day, day_before = (np.floor(times / events.day_length) for times in (time, before))
        described["same_day"] = day == day_before
    return described


def _last_items(part: Any) -> np.ndarray:
    """Return the last item of each row's history, int64 [n_rows]."""
    rows = part.inter_feat
    if isinstance(rows, PrefixRows):
        return rows.last(part.iid_field).numpy()
    length = rows[part.item_list_length_field].numpy()
    history = rows[f"{part.iid_field}{part.config['LIST_SUFFIX']}"].numpy()
    last: np.ndarray = history[np.arange(len(length)), length - 1].astype(np.int64)
    return last


def _follows_in_training(
    last: np.ndarray, target: np.ndarray, histories: Histories, n_items: int
) -> np.ndarray:
    """Say of each ``target`` whether it follows ``last`` somewhere in training: bool [n]."""
    pairs, place = np.unique(last * n_items + target, return_inverse=True)
    found = np.zeros(len(pairs), dtype=bool)
    items, offsets = histories.items.numpy(), histories.offsets.numpy()
    users = len(offsets) - 1
    for first in range(0, users, _USERS):  # so many at once that memory stays bounded
        bounds = offsets[first : first + _USERS + 1]
        part = items[bounds[0] : bounds[-1]].astype(np.int64)
        inner = np.ones(max(len(part) - 1, 0), dtype=bool)
        inner[bounds[1:-1] - bounds[0] - 1] = False  # pairs across two users
        transitions = (part[:-1] * n_items + part[1:])[inner]
        found |= np.isin(pairs, transitions)
    return found[place]
