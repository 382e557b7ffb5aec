"""The core of the events, in which users and items occur often enough, and what it leaves out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from recbole_bbqrec.prepare.atomic_files import CATALOGUE, SEEN, write_lines
from recbole_bbqrec.prepare.tables.ledger import Ledger


class LeftOut(NamedTuple):
    """Events of users of the core with items below it: tokens, object [n] each, a pair once."""

    users: np.ndarray
    items: np.ndarray

    @classmethod
    def of(
        cls, users: np.ndarray, items: np.ndarray, kept: np.ndarray,
        user_names: Sequence[str], item_names: Sequence[str],
    ) -> LeftOut:  # fmt: skip
        """Find them among the events, codes into the names [n_events], of which ``kept`` stay."""
        lost = np.isin(users, users[kept])
        lost[kept] = False
        pairs = np.unique(users[lost].astype(np.int64) * len(item_names) + items[lost])
        user_of, item_of = np.divmod(pairs, max(1, len(item_names)))
        return cls(
            np.array(user_names, dtype=object)[user_of], np.array(item_names, dtype=object)[item_of]
        )

    def lines(self) -> Iterator[str]:
        """Yield the lines of ``NAME.seen.tsv``, sorted: the database numbers names in any order."""
        yield "user_id\titem_id"
        yield from sorted(f"{user}\t{item}" for user, item in zip(self.users, self.items))


def write_catalogue(work: Path, name: str, items: Sequence[str], left_out: LeftOut | None) -> None:
    """Write the list of all items, and the events of those that have none in the core."""
    write_lines(work / f"{name}.{CATALOGUE}", items)
    if left_out is not None and len(left_out.users):
        write_lines(work / f"{name}.{SEEN}", left_out.lines())


def k_core(users: np.ndarray, items: np.ndarray, user_core: int, item_core: int) -> np.ndarray:
    """Return the largest set of events in which every user and every item occurs often enough.

    Users and items that occur too rarely are dropped, repeatedly, until none is left to drop, like
    RecBole's ``*_inter_num_interval`` options do. NumPy's counts are faster here than SQL's.

    Args:
        users: codes, non-negative integers [n_events].
        items: codes, non-negative integers [n_events].
        user_core: smallest number of events of a user that is kept; 1 keeps all.
        item_core: smallest number of events of an item that is kept.

    Returns:
        int64 [n_kept], indices of the events kept, ascending.
    """
    stays = np.ones(len(users), dtype=bool)  # [n_events]
    of_user, of_item = np.bincount(users), np.bincount(items)
    while True:
        rare = ~((of_user >= user_core)[users] & (of_item >= item_core)[items])
        rare &= stays
        if not rare.any():
            return np.flatnonzero(stays)
        stays ^= rare
        of_user -= np.bincount(users[rare], minlength=len(of_user))
        of_item -= np.bincount(items[rare], minlength=len(of_item))


def count_core(
    users: np.ndarray,
    items: np.ndarray,
    kept: np.ndarray,
    cores: tuple[int, int],
    ledger: Ledger,
) -> None:
    """Count the events that the cores of a user and of an item leave out."""
    if len(kept) == len(users):
        return
    lost = [_different(codes) - _different(codes[kept]) for codes in (users, items)]
    ledger.add(
        f"events below the core of {cores[0]} a user and {cores[1]} an item "
        f"({lost[0]:,} users, {lost[1]:,} items)",
        len(users) - len(kept),
    )


def _different(codes: np.ndarray) -> int:
    return int(np.count_nonzero(np.bincount(codes)))
