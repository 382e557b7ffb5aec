"""The order of training rows: whether each follows the one before, and the order that does."""

from __future__ import annotations

import numpy as np

from recbole_bbqrec.errors import UserError


def consecutive(
    users: np.ndarray, targets: np.ndarray, lists: np.ndarray, lengths: np.ndarray
) -> bool:
    """Return True if each row's history ends with the target of the user's row before."""
    last = lists[np.arange(len(users)), lengths - 1]  # [n_rows], the most recent history item
    return not ((last[1:] != targets[:-1]) & (users[1:] == users[:-1])).any()


def in_time_order(
    users: np.ndarray, targets: np.ndarray, lists: np.ndarray, lengths: np.ndarray
) -> np.ndarray:
    """Return the order of shuffled rows, grouped by user: int64 [n_rows].

    A row comes before the one whose history is its own with its target at the end.

    Raises:
        UserError: the rows of a user are not such a chain.
    """
    width = lists.shape[1]
    order: list[int] = []
    by_user = np.lexsort((lengths, users))
    for rows in np.split(by_user, np.flatnonzero(np.diff(users[by_user])) + 1):
        histories = {row: tuple(lists[row, : lengths[row]].tolist()) for row in rows.tolist()}
        after = {row: (*old, int(targets[row]))[-width:] for row, old in histories.items()}
        waiting: dict[tuple[int, ...], list[int]] = {}
        for row, old in histories.items():
            waiting.setdefault(old, []).append(row)
        later = set(after.values())
        row = next((row for row, old in histories.items() if old not in later), int(rows[0]))
        waiting[histories[row]].remove(row)
        order.append(row)
        for _ in range(len(rows) - 1):
            if not waiting.get(after[row]):
                raise UserError(
                    "The training rows are not all prefixes of each user's sequence; expected, for "
                    "each row of a user but the last, one whose history is its own with its target "
                    "at the end. Let RecBole split the .inter file (leave-one-out), or complete "
                    "the rows of `benchmark_filename`."
                )
            row = waiting[after[row]].pop(0)
            order.append(row)
    return np.array(order, dtype=np.int64)
