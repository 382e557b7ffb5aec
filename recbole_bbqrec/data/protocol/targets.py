"""Descriptions of held-out targets: gap in time, same day, seen transition, cold item."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from recbole_bbqrec.data.histories import Histories
from recbole_bbqrec.data.protocol.events import Events

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
    rows = part.inter_feat
    target = rows[part.iid_field].numpy().astype(np.int64)
    length = rows[part.item_list_length_field].numpy()
    history = rows[f"{part.iid_field}{part.config['LIST_SUFFIX']}"].numpy()
    last = history[np.arange(len(target)), length - 1].astype(np.int64)
    histories = Histories.from_training_data(train)
    items, n_items = histories.items.numpy(), part.item_num
    inner = np.ones(max(len(items) - 1, 0), dtype=bool)
    inner[histories.offsets.numpy()[1:-1] - 1] = False  # pairs across two users
    transitions = (items[:-1] * n_items + items[1:])[inner]
    described = {
        "memorized": np.isin(last * n_items + target, transitions),
        "cold": ~histories.trained_items(n_items).numpy()[target],
    }
    index = getattr(part, "event_index", None)
    if events is not None and index is not None and events.known[index].any():
        gap = (events.times[index] - events.times[index - 1]) / events.day_length
        described["gap_days"] = gap.astype(np.float32)
        described["same_day"] = events.days[index] == events.days[index - 1]
    return described
