"""Filters of integer-coded interactions: k-core, events recorded twice, repeated pairs."""

from __future__ import annotations

import numpy as np


def k_core(users: np.ndarray, items: np.ndarray, user_core: int, item_core: int) -> np.ndarray:
    """The largest set of events in which every user and every item occurs often enough.

    Users with fewer than ``user_core`` events and items with fewer than ``item_core`` are
    dropped, repeatedly, until none is left to drop. The result does not depend on the order of
    dropping. RecBole's ``*_inter_num_interval`` options do the same.

    Args:
        users: codes, non-negative integers [n_events].
        items: codes, non-negative integers [n_events].
        user_core: least number of events of a user that is kept; 1 keeps all.
        item_core: least number of events of an item that is kept.

    Returns:
        int64 [n_kept], the events kept, ascending.
    """
    kept = np.arange(len(users))
    while len(kept):
        often = np.bincount(users)[users] >= user_core
        often &= np.bincount(items)[items] >= item_core
        if often.all():
            break
        kept, users, items = kept[often], users[often], items[often]
    return kept


def without_copies(users: np.ndarray, items: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The events kept when of the same user, item and time only the first is, int64 [n_kept].

    ``users``, ``items`` and ``times`` [n_events] are sorted by user, then time.
    """
    tied = (users[1:] == users[:-1]) & (times[1:] == times[:-1])  # with the one before
    run = np.cumsum(np.concatenate([[True], ~tied]))  # [n_events], one number a user and time
    in_run = np.concatenate([[False], tied]) | np.concatenate([tied, [False]])
    events = np.flatnonzero(in_run)
    # Only events that share user and time with another can be copies: few, unless time is coarse.
    order = np.lexsort((events, items[events], run[events]))
    events = events[order]
    copy = (run[events][1:] == run[events][:-1]) & (items[events][1:] == items[events][:-1])
    kept = np.ones(len(users), dtype=bool)
    kept[events[1:][copy]] = False
    return np.flatnonzero(kept)


def one_per_pair(users: np.ndarray, items: np.ndarray, which: str) -> np.ndarray:
    """The ``first`` or ``last`` event of each user and item, int64 [n_kept], ascending.

    ``users`` and ``items`` [n_events] are grouped by user, each user's events in time order.
    """
    order = np.lexsort((items, users))  # stable: a pair's events stay in time order
    same = (users[order][1:] == users[order][:-1]) & (items[order][1:] == items[order][:-1])
    edge = np.concatenate([[True], ~same] if which == "first" else [~same, [True]])
    return np.sort(order[edge])
