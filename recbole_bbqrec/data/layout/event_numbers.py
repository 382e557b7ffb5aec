"""Filters, ids and order of events as RecBole has them, computed on numbers in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from recbole.data.dataset import Dataset

from recbole_bbqrec.data.event_times import EXACT_IN_FLOAT32

_ROWS = 1 << 21  # events worked on together


def parts(n: int) -> Iterator[slice]:
    """Yield slices that cover ``n`` events, so many at once that memory stays bounded."""
    for first in range(0, n, _ROWS):
        yield slice(first, min(first + _ROWS, n))


def kept_events(codes: Sequence[np.ndarray], intervals: Sequence[str | None]) -> np.ndarray:
    """Return the events that RecBole keeps of users and items with too few or too many: bool [n].

    Users and items are left out at once, and again until all that are left have enough.

    Args:
        codes: of users and of items, int32 [n] each; -1 where an event has none.
        intervals: the options `*_inter_num_interval` of both.
    """
    keep = codes[0] >= 0
    rules = [
        (each, Dataset._parse_intervals_str(None, text))
        for each, text in zip(codes, intervals)
        if text is not None
    ]
    while rules:
        left_out = []
        for each, interval in rules:
            counts = np.zeros(int(each.max(initial=-1)) + 1, dtype=np.int64)
            for part in parts(len(each)):
                counts += np.bincount(each[part][keep[part]], minlength=len(counts))
            inside = Dataset._within_intervals(None, counts, interval)
            left_out.append((counts > 0) & np.logical_not(inside))
        if not any(out.any() for out in left_out):
            break
        for part in parts(len(keep)):
            for (each, _), out in zip(rules, left_out):
                keep[part] &= ~out[each[part]]
    return keep


def ids_by_first(codes: np.ndarray, n_codes: int) -> np.ndarray:
    """Return internal ids, from 1, in the order of the first event; 0 for a code without one.

    ``codes`` int32 [n] of the events in the order of the file -> int32 [n_codes].
    """
    first = np.full(n_codes, len(codes), dtype=np.int64)
    for part in reversed(list(parts(len(codes)))):  # of equal indices NumPy keeps the last
        first[codes[part][::-1]] = np.arange(part.stop - 1, part.start - 1, -1)
    order = np.argsort(first, kind="stable")
    order = order[: int((first < len(codes)).sum())]
    new = np.zeros(len(first), dtype=np.int32)
    new[order] = np.arange(1, len(order) + 1)
    return new


def order_of_users(positions: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return users, int32, as RecBole's rows have them: sorted by the time of their first row.

    That is a user's second event. Where float32 cannot tell times apart, ``keep_order`` sorts by
    rank: within the user, if there are too many different times.
    """
    having = np.flatnonzero(np.diff(offsets) > 1)
    begin = offsets[having]
    time = positions[begin + 1]
    ordered = np.sort(positions)
    new = ordered[1:] != ordered[:-1]
    single = ordered.astype(np.float32)
    if (new & (single[1:] == single[:-1])).any() and int(new.sum()) + 1 > EXACT_IN_FLOAT32:
        time = (time != positions[begin]).astype(np.float64)
    return (having[np.argsort(time, kind="stable")] + 1).astype(np.int32)


def repeated_events(
    users: np.ndarray, items: np.ndarray, positions: np.ndarray, order: np.ndarray
) -> dict[str, Any]:
    """Count the events that stand in the file before with the same user, item and time.

    Returns ``count`` and, of the first such line, internal ids and time.
    """
    same = (users[1:] == users[:-1]) & (positions[1:] == positions[:-1])
    tied = np.flatnonzero(np.r_[False, same] | np.r_[same, False])
    del same
    run = np.cumsum(
        np.r_[
            True,
            (np.diff(tied) != 1)
            | (users[tied[1:]] != users[tied[:-1]])
            | (positions[tied[1:]] != positions[tied[:-1]]),
        ][: len(tied)]
    )
    key = run * (int(items.max()) + 1) + items[tied]
    _, first = np.unique(key, return_index=True)  # ``order`` is stable: the first of each stays
    later = np.delete(tied, first)
    if not len(later):
        return {"count": 0}
    line = later[np.argmin(order[later])]
    return {
        "count": len(later), "user": int(users[line]), "item": int(items[line]),
        "time": float(positions[line]),
    }  # fmt: skip
