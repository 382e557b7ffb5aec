"""All events of a data set in the order of each user, with their real times."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from pandas.util import hash_array

from recbole_bbqrec.protocols import ItemDataset

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # odd constants of the SplitMix64 generator
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


class TimedEvents:
    """Days of events, from their ``times``, float64 [n], and the ``day_length``."""

    times: np.ndarray
    day_length: float

    @property
    def days(self) -> np.ndarray:
        """Day of each event, float64 [n]; NaN where the time is not known."""
        return np.floor(self.times / self.day_length)

    @property
    def known(self) -> np.ndarray:
        """True where the real time is known, bool [n]."""
        return ~np.isnan(self.times)


@dataclass(frozen=True)
class Events(TimedEvents):
    """Events sorted by user and, within a user, as RecBole orders them.

    Attributes:
        row: int64 [n], row of the data set's table before it is built.
        users, items: int64 [n], internal ids.
        times: float64 [n]; NaN where the real time of a user's events is not known.
        day_length: length of a day in the unit of ``times``.
    """

    row: np.ndarray
    users: np.ndarray
    items: np.ndarray
    times: np.ndarray
    day_length: float

    def __len__(self) -> int:
        return len(self.row)

    @cached_property
    def earlier(self) -> np.ndarray:
        """Number of earlier events of the same user, int64 [n]."""
        place = np.arange(len(self))
        return place - np.maximum.accumulate(np.where(changes(self.users), place, 0))

    @cached_property
    def later(self) -> np.ndarray:
        """Number of later events of the same user, int64 [n]."""
        place = np.arange(len(self))
        ends = np.flatnonzero(np.r_[changes(self.users)[1:], True][: len(self)])
        return ends[np.searchsorted(ends, place)] - place

    def begin_of_users(self) -> np.ndarray:
        """Return the index of each user's first event by internal id, int64 [last user + 1]."""
        begins = np.flatnonzero(self.earlier == 0)
        result = np.zeros(int(self.users.max(initial=0)) + 1, dtype=np.int64)
        result[self.users[begins]] = begins
        return result

    def pieces(self) -> Iterator[Events]:
        """Yield the events, whole users together: here all at once."""
        yield self

    def spans(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the index of the first event of each user, and the number of events: int64 [n]."""
        first = np.searchsorted(self.users, users)
        return first, np.searchsorted(self.users, users, side="right") - first

    def take(self, index: np.ndarray) -> Events:
        """Return the events at ``index``, in its order."""
        arrays = (self.row, self.users, self.items, self.times)
        row, users, items, times = (array[index] for array in arrays)
        return Events(row, users, items, times, self.day_length)


def changes(values: np.ndarray) -> np.ndarray:
    """Return True where a value differs from the one before, and for the first: bool [n]."""
    return np.r_[True, values[1:] != values[:-1]][: len(values)]


def read_events(dataset: Any, real_time_field: str, day_length: float) -> Events:
    """Return the events of a data set that is not yet built.

    A column ``real_time_field`` is taken out of the data set: RecBole would copy it into every row.
    Times within the first day of the epoch are positions, which `prepare` writes where no time is
    known; a user who has nothing else has no known times.
    """
    frame = dataset.inter_feat
    positions = times = frame[dataset.time_field].to_numpy(np.float64)
    users = frame[dataset.uid_field].to_numpy(np.int64)
    items = frame[dataset.iid_field].to_numpy(np.int64)
    if real_time_field in frame and real_time_field != dataset.time_field:
        times = frame[real_time_field].to_numpy(np.float64)
        dataset._del_col(frame, real_time_field)
    return order_events(users, items, positions, times, day_length)


def order_events(
    users: np.ndarray,
    items: np.ndarray,
    positions: np.ndarray,
    times: np.ndarray,
    day_length: float,
) -> Events:
    """Sort events by user and position, each array [n]; equal positions keep the file's order."""
    row = np.lexsort((positions, users))  # stable, as RecBole's sort is
    users, times = users[row], times[row]
    real = np.zeros(int(users.max(initial=0)) + 1, dtype=bool)
    real[users[~((times >= 0) & (times < day_length))]] = True
    return Events(row, users, items[row], np.where(real[users], times, np.nan), day_length)


def random_keys(events: Events, dataset: ItemDataset, seed: int) -> np.ndarray:
    """Return a random number for each event, uint64 [n].

    It depends on ``seed`` and the tokens of user and item alone: neither on the order of a file,
    nor on internal ids.
    """

    def hashes(field: str, salt: str) -> np.ndarray:
        tokens: Any = dataset.field2id_token[field]
        return hash_array(np.asarray([str(token) for token in tokens], object), hash_key=salt)

    users = hashes(dataset.uid_field, "users of a split")[events.users]
    items = hashes(dataset.iid_field, "items of a split")[events.items]
    with np.errstate(over="ignore"):
        key = users + items * _GOLDEN + np.uint64(seed) * _MIX_2
        for shift, factor in ((30, _MIX_1), (27, _MIX_2)):
            key = (key ^ (key >> np.uint64(shift))) * factor
    return key ^ (key >> np.uint64(31))
