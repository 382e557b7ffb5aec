"""Training histories by user, and batches of them.

RecBole turns a user with n training events into n - 1 rows, one per prefix. Here the events are
put back together, so that one pass over a user can train all prefixes at once (``causal``), or
each prefix can still be a row of its own (``bidirectional``). Both visit every (prefix, target)
pair exactly once an epoch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch

from recbole_bbqrec.data.layout.mapped_split import TrainingHistories
from recbole_bbqrec.data.layout.prefix_rows import PrefixRows
from recbole_bbqrec.data.protocol.row_order import consecutive, in_time_order
from recbole_bbqrec.distributed import group, sums
from recbole_bbqrec.protocols import ItemDataset

ENCODINGS = ("causal", "bidirectional")
UNITS = ("targets", "histories")
_ITEMS = 1 << 22  # looked at together
_BUCKET_BATCHES = 50  # batches in a chunk sorted by length: more pad less but mix less


@dataclass(frozen=True)
class Histories:
    """Training events of all users in time order, users one after another.

    >>> histories = Histories(  # user 1 with the items 5, 6, 7 and user 2 with 8, 9
    ...     items=torch.tensor([5, 6, 7, 8, 9]),
    ...     offsets=torch.tensor([0, 3, 5]),
    ...     users=torch.tensor([1, 2]),
    ... )
    >>> len(histories)
    2
    >>> batch = next(HistoryBatches(histories, batch_size=8).epoch(0))
    >>> sorted(zip(batch.items.tolist(), batch.targets.tolist()))
    [([5, 6], [6, 7]), ([8, 0], [9, 0])]

    Attributes:
        items: int64 [n_events], internal item ids; int32 where the events are mapped.
        offsets: int64 [n_users + 1]; user u owns ``items[offsets[u] : offsets[u + 1]]``.
        users: int64 [n_users], internal user ids, ascending.
    """

    items: torch.Tensor
    offsets: torch.Tensor
    users: torch.Tensor

    @classmethod
    def from_training_data(cls, train_dataset: ItemDataset) -> Histories:
        """Put the events back together from RecBole's augmented training rows.

        A user's first row holds the first event as its history, and every row's target is the
        next event, so nothing is lost to MAX_ITEM_LIST_LENGTH and no held-out item can enter. A run
        asks several times: the result is kept as long as the rows live.

        Args:
            train_dataset: the training part of a built ``SequentialDataset``.

        Raises:
            UserError: the rows are not every prefix of a user, as can happen with hand-made
                ``benchmark_filename`` files. Their order does not matter.
        """
        rows = train_dataset.inter_feat
        if isinstance(rows, TrainingHistories):
            return cls(rows.items, rows.offsets, rows.users)
        if rows not in _HISTORIES:
            found = _of_prefixes(train_dataset) if isinstance(rows, PrefixRows) else None
            _HISTORIES[rows] = _of_rows(train_dataset) if found is None else found
        return _HISTORIES[rows]

    def __len__(self) -> int:
        return int(self.users.numel())

    def trained_items(self, n_items: int) -> torch.Tensor:
        """Return bool [n_items], true for the items of any training history."""
        seen = torch.zeros(n_items, dtype=torch.bool)
        for items in self.items.split(_ITEMS):
            seen[items.long()] = True
        return seen


#: Histories of the rows of a data set, which several parts of a run ask for.
_HISTORIES: WeakKeyDictionary[Any, Histories] = WeakKeyDictionary()


def _of_prefixes(train_dataset: ItemDataset) -> Histories | None:
    """Take the histories from the events, unless a user's rows leave some between them out."""
    rows = train_dataset.inter_feat
    users = rows[train_dataset.uid_field].numpy()  # [n_rows]
    order = np.argsort(users, kind="stable")
    users, target = users[order], rows.target.numpy()[order]
    opens = np.r_[True, users[1:] != users[:-1]][: users.size]  # the first row of its user
    if (np.diff(target)[~opens[1:]] != 1).any():
        return None
    begins = np.flatnonzero(opens)  # [n_users]
    length = rows[train_dataset.item_list_length_field].numpy()[order[begins]]
    counts = np.diff(np.r_[begins, users.size])  # [n_users], rows per user
    offsets = np.r_[0, np.cumsum(length + counts)].astype(np.int64)
    index = np.arange(offsets[-1])
    index += np.repeat(target[begins] - length - offsets[:-1], np.diff(offsets))
    return Histories(
        rows.event_values(train_dataset.iid_field)[torch.from_numpy(index)],
        torch.from_numpy(offsets),
        torch.from_numpy(users[begins].astype(np.int64)),
    )


def _of_rows(train_dataset: ItemDataset) -> Histories:
    """Do the work of :meth:`Histories.from_training_data`."""
    rows = train_dataset.inter_feat
    users = rows[train_dataset.uid_field].numpy()  # [n_rows]
    targets = rows[train_dataset.iid_field].numpy()  # [n_rows]
    lists = rows[f"{train_dataset.iid_field}{train_dataset.config['LIST_SUFFIX']}"].numpy()
    lengths = rows[train_dataset.item_list_length_field].numpy()  # [n_rows]
    order = np.argsort(users, kind="stable")  # rows of a user stay in time order
    if not consecutive(users[order], targets[order], lists[order], lengths[order]):
        order = in_time_order(users, targets, lists, lengths)
    users, targets = users[order], targets[order]
    opening = lists[order]  # [n_rows, T]
    begins = np.flatnonzero(np.r_[True, users[1:] != users[:-1]][: users.size])  # [n_users]
    first_lengths = lengths[order][begins]  # [n_users], 1 unless the rows were hand-made
    counts = np.diff(np.r_[begins, users.size])  # [n_users], rows per user
    offsets = np.r_[0, np.cumsum(first_lengths + counts)].astype(np.int64)
    items = np.zeros(int(offsets[-1]), dtype=np.int64)
    width = np.arange(lists.shape[1])
    inside = width < first_lengths[:, None]  # [n_users, T]
    items[(offsets[:-1, None] + width)[inside]] = opening[begins][inside]
    rank = np.arange(users.size) - np.repeat(begins, counts)  # [n_rows], row within the user
    items[np.repeat(offsets[:-1] + first_lengths, counts) + rank] = targets
    return Histories(
        torch.from_numpy(items),
        torch.from_numpy(offsets),
        torch.from_numpy(users[begins].astype(np.int64)),
    )


class _Tensors(NamedTuple):
    items: torch.Tensor
    targets: torch.Tensor
    lengths: torch.Tensor


class HistoryBatch(_Tensors):
    """A batch of histories, right padded with item 0.

    Attributes:
        items: int64 [B, T].
        targets: int64 [B, T]; ``targets[b, t]`` is the item to predict after
            ``items[b, : t + 1]``, 0 where nothing is to be predicted.
        lengths: int64 [B], number of items of each row, at least 1.
        share: of the batch's targets, those in these rows; 1 unless :meth:`mine` took some.
    """

    share = 1.0

    def to(self, device: torch.device | str) -> HistoryBatch:
        """Return the batch on ``device``."""
        moved = HistoryBatch(*(tensor.to(device) for tensor in self))
        moved.share = self.share
        return moved

    def mine(self) -> HistoryBatch:
        """Return the rows that this process trains on; all for a process alone.

        Rows of a batch stand in the order of their lengths, so that the processes get equal work.
        A process without a row gets the first, with share 0: it must come to every meeting.
        """
        if not group.running():
            return self
        has_rows = group.rank() < len(self.lengths)
        rows = sums.part() if has_rows else slice(0, 1)
        longest = int(self.lengths[rows].max())
        items, targets = self.items[rows, :longest], self.targets[rows, :longest]
        part = HistoryBatch(items, targets, self.lengths[rows])
        counts = (self.targets > 0).sum(1)  # [B]
        part.share = float(counts[rows].sum() / counts.sum()) if has_rows else 0.0
        return part


class HistoryBatches:
    """Length-bucketed batches over all (prefix, target) pairs of the training histories.

    ``causal``: a row is a window of at most ``max_length`` events. A longer sequence is cut into
    overlapping windows, moved by ``max_length // 2``; targets already trained by the window
    before are 0, so that every later target sees at least ``max_length // 2`` events.
    ``bidirectional``: a row is one prefix cut to its last ``max_length`` events, with its single
    target at position ``length - 1``.

    With ``unit="targets"`` a batch holds about ``batch_size`` targets, so both encodings take
    the same number of steps an epoch, that of RecBole's ``train_batch_size``; with
    ``unit="histories"`` it holds about ``batch_size`` rows. The order depends on (seed, epoch)
    alone. Batches satisfy :mod:`recbole_bbqrec.generator.batch.checks`, so that nobody has to
    check them in a training step.
    """

    def __init__(
        self,
        histories: Histories,
        *,
        batch_size: int,
        max_length: int = 20,
        encoding: str = "causal",
        unit: str = "targets",
        seed: int = 0,
    ) -> None:
        """Raise a ValueError for an argument out of range, or when there is nothing to train."""
        for name, value in (("batch_size", batch_size), ("max_length", max_length)):
            if value < 1:
                raise ValueError(f"{name} is {value}; expected at least 1")
        for name, choice, allowed in (("encoding", encoding, ENCODINGS), ("unit", unit, UNITS)):
            if choice not in allowed:
                raise ValueError(f"{name} is {choice!r}; expected one of {allowed}")
        cut = _causal_windows if encoding == "causal" else _prefixes
        self._start, self._length, self._first = cut(histories.offsets, max_length)
        if self._start.numel() == 0:
            raise ValueError("no user has two training events; there is nothing to predict")
        self._events = histories.items
        # Size of each row in the unit of batch_size, int64 [n_rows].
        targets = self._length - self._first
        self._size = targets if unit == "targets" else torch.ones_like(targets)
        self._batch_size = batch_size
        self._seed = seed
        self.n_targets = int(targets.sum())
        self.n_rows = int(self._start.numel())

    def __len__(self) -> int:
        """Return the number of batches, the same every epoch."""
        return min(self.n_rows, math.ceil(int(self._size.sum()) / self._batch_size))

    def epoch(self, epoch_index: int) -> Iterator[HistoryBatch]:
        """Yield the batches of one epoch; a row is never in two of them."""
        order, bounds = self._plan(epoch_index)
        for begin, end in bounds:
            yield self._gather(order[begin:end])

    def _plan(self, epoch_index: int) -> tuple[torch.Tensor, list[list[int]]]:
        """Return the row order, int64 [n_rows], and each batch's slice of it, in random order."""
        state = np.random.SeedSequence((self._seed, epoch_index)).generate_state(2)
        generator = torch.Generator().manual_seed(int(state[0]) << 31 ^ int(state[1]))
        order = torch.randperm(self.n_rows, generator=generator)
        before = self._size[order].cumsum(0) - self._size[order]  # [n_rows]
        chunk = before // (_BUCKET_BATCHES * self._batch_size)  # [n_rows], non-decreasing
        # Every other chunk runs from long to short, so that no batch spans a jump in length.
        key = self._length[order] * (1 - 2 * (chunk % 2))
        by_length = torch.sort(key, stable=True).indices
        order = order[by_length[torch.sort(chunk[by_length], stable=True).indices]]
        bounds = self._bounds(self._size[order].cumsum(0))  # [n_batches, 2]
        shuffle = torch.randperm(len(self), generator=generator)
        return order, bounds[shuffle].tolist()

    def _bounds(self, filled: torch.Tensor) -> torch.Tensor:
        """Cut rows of cumulative size ``filled`` [n_rows] into ``len(self)`` non-empty slices."""
        n_batches = len(self)
        number = torch.arange(n_batches + 1)
        goal = filled[-1] * number // n_batches  # [n_batches + 1]
        cut = torch.searchsorted(filled, goal, right=False)
        cut[1:] += 1  # the row that reaches the goal belongs to the batch that it fills
        # Keep at least one row per batch, first from the left and then from the right.
        cut = torch.cummax(cut - number, 0).values + number
        cut = torch.minimum(cut, self.n_rows - n_batches + number)
        return torch.stack([cut[:-1], cut[1:]], dim=1)

    def _gather(self, rows: torch.Tensor) -> HistoryBatch:
        length = self._length[rows]  # [B]
        step = torch.arange(int(length.max()))  # [T]
        index = self._start[rows][:, None] + step  # [B, T]
        inside = step < length[:, None]  # [B, T]
        mask = inside & (step >= self._first[rows][:, None])  # [B, T]
        index = torch.where(inside, index, 0)
        # A row ends one event before its user's last, so that there is an event after each.
        items, targets = self._events[index].long(), self._events[index + 1].long()
        return HistoryBatch(items * inside, targets * mask, length)


def _causal_windows(
    offsets: torch.Tensor, max_length: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return start, length and first trained position of each window, int64 [n_windows] each."""
    stride = max(1, max_length // 2)
    inputs = (offsets[1:] - offsets[:-1] - 1).clamp(min=0)  # [n_users], pairs of each user
    extra = (inputs - max_length).clamp(min=0)
    windows = torch.where(inputs > 0, 1 + (extra + stride - 1) // stride, 0)  # [n_users]
    number = _ranks(windows)  # [n_windows], window within the user
    user = torch.repeat_interleave(torch.arange(windows.numel()), windows)
    shift = number * stride
    length = (inputs[user] - shift).clamp(max=max_length)
    first = torch.where(number > 0, max_length - stride, 0)
    return offsets[:-1][user] + shift, length, first


def _prefixes(
    offsets: torch.Tensor, max_length: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Do the same for one row per (prefix, target), of which the last position is trained."""
    inputs = (offsets[1:] - offsets[:-1] - 1).clamp(min=0)  # [n_users]
    end = _ranks(inputs)  # [n_rows], index of the last input within the user
    begin = (end - max_length + 1).clamp(min=0)
    length = end - begin + 1
    start = torch.repeat_interleave(offsets[:-1], inputs) + begin
    return start, length, length - 1


def _ranks(counts: torch.Tensor) -> torch.Tensor:
    """List 0 .. counts[0]-1, 0 .. counts[1]-1, ...: int64 [counts.sum()]."""
    before = counts.cumsum(0) - counts
    return torch.arange(int(counts.sum())) - torch.repeat_interleave(before, counts)
