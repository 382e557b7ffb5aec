"""RecBole's rows, one per prefix of a user, laid out for one batch at a time.

RecBole repeats each event in up to MAX_ITEM_LIST_LENGTH rows. Here a row is the index of its
target in the events, which are in the order of each user.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Names and width of the columns of a row.

    Attributes:
        list_of: name of a list column -> column of the events that it lists.
        length: name of the column with the length of the lists.
        width: length of a list, its zeros on the right included.
    """

    list_of: Mapping[str, str]
    length: str
    width: int


class PrefixRows(Interaction):
    """Rows of RecBole's ``SequentialDataset``: a history and the event after it.

    Behaves as the Interaction that RecBole makes. A column asked for by its name is laid out anew
    each time. Rows asked for by an array or a tensor, as by RecBole's loaders, are laid out;
    by a list, a range or a slice, as by RecBole's splits, they remain indices.

    Args:
        events: column -> its values [n_events], users one after another, each in order.
        first: int64 [n_rows], index of the first event of the row's user.
        target: int64 [n_rows], index of the event after the history.
        layout: names and width of the columns.
    """

    def __init__(
        self, events: Mapping[str, Tensor], first: Tensor, target: Tensor, layout: Layout
    ) -> None:
        self.interaction = _Columns(events, first, target, layout)
        self.length = len(target)

    @property
    def target(self) -> Tensor:
        """Index of each row's target in the events, int64 [n_rows]."""
        return self.interaction.target

    def event_values(self, name: str) -> Tensor:
        """Return a column of the events, [n_events]."""
        return self.interaction.events[name]

    def last(self, name: str) -> Tensor:
        """Return the value of the last event of each history, [n_rows]."""
        return self.interaction.events[name][self.target - 1].to(self[name].dtype)

    def part(self, index: Any) -> PrefixRows:
        """Return the rows at ``index``, int64 [n], a list, a range or a slice, as indices."""
        other = type(self).__new__(type(self))
        other.interaction = self.interaction.part(_indices(index))
        other.length = len(other.interaction.target)
        return other

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, str):
            return self.interaction[index]
        if isinstance(index, (list, range, slice)):
            return self.part(index)
        return Interaction(self.interaction.lay_out(index))

    def _reindex(self, index: Any) -> None:  # RecBole's name
        self.interaction = self.interaction.part(_indices(index))


class _Columns(MutableMapping[str, Tensor]):
    """Columns of :class:`PrefixRows` by name; those that were set are kept beside the others."""

    def __init__(
        self, events: Mapping[str, Tensor], first: Tensor, target: Tensor, layout: Layout
    ) -> None:
        self.events, self.first, self.target, self.layout = events, first, target, layout
        self._names = [*events, layout.length, *layout.list_of]
        self._set: dict[str, Tensor] = {}

    def part(self, index: Any) -> _Columns:
        other = _Columns(self.events, self.first[index], self.target[index], self.layout)
        other._names = list(self._names)
        other._set = {name: values[index] for name, values in self._set.items()}
        return other

    def lay_out(self, index: Any) -> dict[str, Tensor]:
        """Lay out all columns of the rows at ``index``; of one row, its values."""
        part = self.part(np.reshape(index, -1) if isinstance(index, int) else _indices(index))
        columns = {name: part[name] for name in part}
        return {k: v[0] for k, v in columns.items()} if isinstance(index, int) else columns

    def __getitem__(self, name: str) -> Tensor:
        if name in self._set:
            return self._set[name]
        if name not in self._names:
            raise KeyError(name)
        if name in self.events:
            return _widened(self.events[name][self.target])
        begin = torch.maximum(self.first, self.target - self.layout.width)
        length = self.target - begin  # [n_rows]
        if name == self.layout.length:
            return length
        values = self.events[self.layout.list_of[name]]
        place = torch.arange(self.layout.width)  # [T]
        inside = place < length[:, None]  # [n_rows, T]
        chosen = _widened(values[(begin[:, None] + place)[inside]])
        column = torch.zeros(inside.shape, dtype=chosen.dtype)
        column[inside] = chosen
        return column

    def __setitem__(self, name: str, values: Tensor) -> None:
        self._set[name] = values
        if name not in self._names:
            self._names.append(name)

    def __delitem__(self, name: str) -> None:
        self._names.remove(name)
        self._set.pop(name, None)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._names))

    def __len__(self) -> int:
        return len(self._names)


def _widened(values: Tensor) -> Tensor:
    """Return item numbers as int64, whatever they are stored as."""
    return values if values.is_floating_point() else values.long()


def _indices(index: Any) -> Any:
    """Return an index that tensors take; of no rows, one of integers."""
    if isinstance(index, (slice, Tensor)):
        return index
    array = np.ascontiguousarray(index)
    return torch.from_numpy(array if len(array) else array.astype(np.int64))


def prefix_rows(users: np.ndarray) -> tuple[Tensor, Tensor]:
    """Find each row's first event of the user and its target, in events grouped by user.

    Both are indices into the events, int64 [n_rows]; every event but a user's first is a target.
    """
    same = users[1:] == users[:-1]  # [n_events - 1]
    target = np.flatnonzero(same) + 1
    begins = np.flatnonzero(np.concatenate([[True], ~same]))  # [n_users]
    first = begins[np.searchsorted(begins, target, side="right") - 1]
    return torch.from_numpy(first.astype(np.int64)), torch.from_numpy(target.astype(np.int64))


def last_two(users: np.ndarray) -> list[np.ndarray]:
    """Split rows as RecBole's leave-one-out does: numbers of the rows of its three parts.

    Users come in the order of their first rows, ``users`` int64 [n_rows] being the rows' users; a
    user of two rows has no validation, one of a single row only trains.
    """
    _, first, inverse, counts = np.unique(
        users, return_index=True, return_inverse=True, return_counts=True
    )
    order = np.argsort(first[inverse], kind="stable")  # [n_rows], grouped by user
    sizes = counts[np.argsort(first, kind="stable")]  # [n_users], in the order of the groups
    ends = np.repeat(np.cumsum(sizes), sizes)
    later = ends - 1 - np.arange(len(users))  # rows of the same user after it
    size = np.repeat(sizes, sizes)
    test = (later == 0) & (size >= 2)
    valid = (later == 1) & (size >= 3)
    return [order[~test & ~valid], order[valid], order[test]]
