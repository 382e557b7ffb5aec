"""RecBole's epochs and evaluations shared among the processes of a run."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Callable

import torch
from recbole.trainer import Trainer
from recbole.trainer import trainer as recbole_trainer
from torch.nn.utils import clip_grad_norm_

from recbole_bbqrec.distributed import group, sums


class NoWriter:
    """A TensorBoard writer that writes nothing."""

    log_dir = ""

    def add_scalar(self, *values: Any, **named: Any) -> None:
        """Do nothing."""

    def add_hparams(self, *values: Any, **named: Any) -> None:
        """Do nothing."""


@contextmanager
def no_tensorboard(unless: bool = False) -> Iterator[None]:
    """Keep RecBole's trainer from opening a TensorBoard file in the block.

    Its constructor does so through a function of the module: no method or option stands between.
    """
    original = recbole_trainer.get_tensorboard
    if not unless:
        recbole_trainer.get_tensorboard = lambda logger: NoWriter()
    try:
        yield
    finally:
        recbole_trainer.get_tensorboard = original


def own_batches(loader: Any) -> Any:
    """Return the evaluation ``loader``, seen by this process in every n-th batch alone.

    All batches are made, since making one may draw negatives; those of others are let go. A batch
    stays whole: its scores are the same bits as those of a process alone.
    """
    if not group.running() or not loader:
        return loader

    def batches(self: Any) -> Iterator[Any]:
        mine = sums.part()
        return itertools.islice(type(loader).__iter__(self), mine.start, None, mine.step)

    own = copy.copy(loader)
    own.__class__ = type(f"Own{type(loader).__name__}", (type(loader),), {"__iter__": batches})
    return own


class _OwnRows:
    """A training loader of RecBole's, seen in this process's rows of every batch."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.share = 1.0  # of the latest batch's rows

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        for batch in self.loader:
            has_rows = group.rank() < len(batch)
            rows = torch.arange(len(batch))[sums.part() if has_rows else slice(1)]
            mine = batch[rows]  # by numbers: the models expect contiguous tensors
            self.share = len(mine) / len(batch) if has_rows else 0.0
            yield mine


class SharedEpochs(Trainer):
    """A RecBole trainer whose batches are shared among the processes of a run, row by row.

    The loss of a batch must be a mean over its rows (or not depend on them): then gradients are
    those of the whole batch. A process alone runs RecBole's loop, unchanged.
    """

    shares_rows = True  # False where the epoch of a subclass takes its own part of each batch
    clip_grad_norm: Any
    _clip: Any = None
    _sums_gradients = False

    def _train_epoch(
        self,
        train_data: Any,
        epoch_idx: int,
        loss_func: Callable[[Any], Any] | None = None,
        show_progress: bool = False,
    ) -> Any:
        if not (group.running() and self.shares_rows):
            return super()._train_epoch(train_data, epoch_idx, loss_func, show_progress)
        rows, whole = _OwnRows(train_data), loss_func or self.model.calculate_loss

        def part(interaction: Any) -> Any:
            loss = whole(interaction)
            several = isinstance(loss, tuple)
            return tuple(term * rows.share for term in loss) if several else loss * rows.share

        sums.synchronise(self.model)
        sums.draw_apart(self.config["seed"], epoch_idx)
        if not self._sums_gradients:
            self.optimizer.register_step_pre_hook(self._before_step)
            self._sums_gradients = True
        self._clip, self.clip_grad_norm = self.clip_grad_norm, None  # clip whole gradients alone
        try:
            loss = super()._train_epoch(rows, epoch_idx, part, show_progress)
        finally:
            self.clip_grad_norm = self._clip
        sums.synchronise(self.model)  # running statistics of a batch normalisation
        losses = group.gathered(loss)
        return tuple(map(sum, zip(*losses))) if isinstance(loss, tuple) else sum(losses)

    def _before_step(self, *_: Any) -> None:
        sums.sum_gradients(self.model.parameters())
        if self._clip:
            clip_grad_norm_(self.model.parameters(), **self._clip)
