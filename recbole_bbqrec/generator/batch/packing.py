"""Moves between a padded grid and its used cells."""

from __future__ import annotations

from copy import copy

import torch
from torch import Tensor

from recbole_bbqrec.nn.transfer import send


class Packing:
    """The used cells of a [B, S] grid, in row-major order.

    Everything that treats cells alike (linear maps, norms, dropout) runs on the n packed cells,
    so that padding costs nothing; only attention needs the grid.

    >>> used = torch.tensor([[True, True, False], [True, False, False]])
    >>> cells = Packing(used)
    >>> cells.pack(torch.tensor([[7, 8, 0], [9, 0, 0]]))
    tensor([7, 8, 9])
    >>> cells.unpack(torch.tensor([7, 8, 9]))
    tensor([[7, 8, 0],
            [9, 0, 0]])
    >>> cells.last(torch.tensor([2, 1]))
    tensor([1, 2])
    """

    def __init__(self, used: Tensor) -> None:
        """Lay out the cells of ``used`` bool [B, S]."""
        self.shape = used.shape
        self.index: Tensor | None = None  # None: every cell is used
        if not bool(used.all()):
            self.index = used.flatten().nonzero().squeeze(1)  # int64 [n]

    def __len__(self) -> int:
        return self.shape.numel() if self.index is None else self.index.numel()

    def to(self, device: torch.device) -> Packing:
        """Return the same cells on ``device``; the CPU does not wait."""
        moved = copy(self)
        moved.index = send(self.index, device)
        return moved

    def last(self, lengths: Tensor) -> Tensor:
        """Return the packed cell that ends each row, int64 [B]; rows are filled from the left.

        ``lengths`` int64 [B], each at least 1.
        """
        if self.index is None:
            step = self.shape[1]
            return torch.arange(step - 1, len(self), step, device=lengths.device)
        return lengths.cumsum(0) - 1

    def pack(self, grid: Tensor) -> Tensor:
        """Take the used cells: [B, S, ...] -> [n, ...]."""
        cells = grid.flatten(0, 1)
        return cells if self.index is None else cells.index_select(0, self.index)

    def unpack(self, cells: Tensor) -> Tensor:
        """Put cells back: [n, ...] -> [B, S, ...], zero where the grid is unused."""
        if self.index is not None:
            grid = cells.new_zeros(self.shape.numel(), *cells.shape[1:])
            cells = grid.index_copy_(0, self.index, cells)
        return cells.view(*self.shape, *cells.shape[1:])


def slots_of(used: Tensor) -> tuple[Tensor, Tensor]:
    """Push the used columns of each row to the left.

    ``used`` bool [B, T] -> (column int64 [B, S], filled bool [B, S]), S the largest number of
    used columns in a row; ``column`` is 0 where a slot is not filled.

    >>> slots_of(torch.tensor([[False, True, True], [True, False, False]]))[0]
    tensor([[1, 2],
            [0, 0]])
    """
    counts = used.sum(1)  # [B]
    n_slots = int(counts.max())
    order = torch.argsort(~used, dim=1, stable=True)[:, :n_slots]  # [B, S]
    filled = torch.arange(n_slots, device=used.device) < counts[:, None]  # [B, S]
    return order * filled, filled
