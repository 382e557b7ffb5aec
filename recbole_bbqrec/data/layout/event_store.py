"""Events of a data set as arrays on disk, mapped into memory.

A folder of the mapped events, named after a hash of the interaction file and of the options that
decide which events count::

    items.npy         int32 [n], internal item ids: users one after another, each in order
    offsets.npy       int64 [n_users + 1]; user u owns items[offsets[u - 1] : offsets[u]]
    times.npy         float64 [n], real times
    train_items.npy   int32, the items without those that leave-one-out holds out
    order.npy         int32, users in the order in which RecBole lists held-out events
    user_tokens.npy  item_tokens.npy   text, by internal id; "[PAD]" is 0
    facts.json        format, sizes and SHA-256 of the arrays, duplicates
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from recbole_bbqrec.atomic import sha256_of
from recbole_bbqrec.data.protocol.events import Events, TimedEvents
from recbole_bbqrec.reading import read_json_object, reading

FORMAT = 1
FACTS = "facts.json"
ARRAYS = (
    "items", "offsets", "times", "train_items", "order", "user_tokens", "item_tokens",
)  # fmt: skip
_PIECE = 1 << 21  # events of whole users looked at together


@dataclass(frozen=True)
class EventStore:
    """The arrays of a folder, see the module; ``facts`` is its facts.json."""

    items: np.ndarray
    offsets: np.ndarray
    times: np.ndarray
    train_items: np.ndarray
    order: np.ndarray
    user_tokens: np.ndarray
    item_tokens: np.ndarray
    facts: Mapping[str, Any]

    @classmethod
    def open(cls, folder: Path) -> EventStore:
        """Map the arrays of a folder, once their checksums are those in facts.json.

        Raises:
            UserError: a file is missing or damaged.
        """
        remedy = "Remove the folder; the next run makes it anew."
        facts = read_json_object(folder / FACTS, "the list of mapped events", remedy)
        arrays = {}
        for name in ARRAYS:
            path = folder / f"{name}.npy"
            with reading(path, "mapped events", remedy):
                if sha256_of(path) != facts["sha256"][name]:
                    raise ValueError("its checksum does not fit")
                # Copy on write, as torch asks for; nothing is ever written.
                arrays[name] = np.asarray(np.load(path, mmap_mode="c"))
        return cls(**arrays, facts=facts)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def n_users(self) -> int:
        """Number of users, without padding."""
        return len(self.offsets) - 1


def held_out(counts: np.ndarray) -> np.ndarray:
    """Return how many of a user's last events leave-one-out holds out: int64 [n] -> [n].

    RecBole keeps the first two of a user to train on.
    """
    return np.clip(counts - 2, 0, 2)


class StoredEvents(TimedEvents):
    """The events of a store as a protocol reads them; see :class:`Events`.

    Args:
        store: the arrays.
        day_length: length of a day in the unit of the times. A user all of whose times lie within
            the first day has none.
    """

    def __init__(self, store: EventStore, day_length: float) -> None:
        self.items, self.day_length = store.items, day_length
        self._offsets = store.offsets
        self.times = self._known(store.times)

    def __len__(self) -> int:
        return len(self.items)

    @cached_property
    def users(self) -> np.ndarray:
        """User of each event, int64 [n]; made when somebody asks for all of them."""
        return np.repeat(np.arange(1, len(self._offsets)), np.diff(self._offsets))

    @cached_property
    def earlier(self) -> np.ndarray:
        """Number of earlier events of the same user, int64 [n]; made likewise."""
        return np.arange(len(self)) - self._offsets[self.users - 1]

    def spans(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the index of the first event of each user, and the number of events."""
        return self._offsets[users - 1], self._offsets[users] - self._offsets[users - 1]

    def pieces(self) -> Iterator[Events]:
        """Yield the events, whole users together; ``row`` counts within a piece."""
        for first, end in self._bounds():
            begin, stop = self._offsets[first], self._offsets[end]
            counts = np.diff(self._offsets[first : end + 1])
            users = np.repeat(np.arange(first + 1, end + 1), counts)
            items = self.items[begin:stop].astype(np.int64)
            yield Events(
                np.arange(len(users)), users, items, self.times[begin:stop], self.day_length
            )

    def _bounds(self) -> Iterator[tuple[int, int]]:
        """Yield the first user of each piece, from 0, and the one after its last."""
        first, n_users = 0, len(self._offsets) - 1
        while first < n_users:
            end = int(np.searchsorted(self._offsets, self._offsets[first] + _PIECE, "right")) - 1
            yield first, (end := min(max(end, first + 1), n_users))
            first = end

    def _known(self, times: np.ndarray) -> np.ndarray:
        """Return ``times``, NaN for users who have positions instead."""
        found = []
        for first, end in self._bounds():
            bounds = self._offsets[first : end + 1]
            part = times[bounds[0] : bounds[-1]]
            real = ~((part >= 0) & (part < self.day_length))
            any_real = np.logical_or.reduceat(real, bounds[:-1] - bounds[0])  # [users]
            if not any_real.all():
                found.append(np.stack([bounds[:-1][~any_real], bounds[1:][~any_real]]))
        if not found:
            return times
        times = times.copy()
        for begin, end in np.concatenate(found, axis=1).T:
            times[begin:end] = np.nan
        return times


class TokenNumbers(MutableMapping[str, int]):
    """Internal ids by token, made when the first token is asked for.

    Args:
        tokens: text [n], by internal id.
    """

    def __init__(self, tokens: np.ndarray) -> None:
        self._tokens = tokens

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {token: number for number, token in enumerate(self._tokens.tolist())}

    def __getitem__(self, token: str) -> int:
        return self._ids[token]

    def __setitem__(self, token: str, number: int) -> None:
        self._ids[token] = number

    def __delitem__(self, token: str) -> None:
        del self._ids[token]

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids) if "_ids" in self.__dict__ else len(self._tokens)
