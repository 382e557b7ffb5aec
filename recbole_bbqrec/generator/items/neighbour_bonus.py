"""Bonuses at inference for items close to those of a history.

An item i gains, over the items j of the history,

    sum of  decay ** ago(j) * value(j, i)

where ago(j) is the number of items chosen after j, and value(j, i) is known before training
(:mod:`recbole_bbqrec.model.parts.neighbour_graph`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_bbqrec.generator.items import ragged

if TYPE_CHECKING:  # exported models are read without SciPy
    from scipy import sparse

_CELLS = 1 << 21  # numbers of a bonus that is laid out for every item


class Bonus(Protocol):
    """A number for each item of each of n histories, zero for most."""

    def take(self, rows: Tensor | slice) -> Bonus:
        """Restrict to the histories ``rows``, in their order."""

    def add_to(self, scores: Tensor) -> Tensor:
        """Add to ``scores`` [I, n], one row a place, in place."""

    def at(self, rows: Tensor, places: Tensor, n_items: int) -> Tensor:
        """Look up the numbers [E] of items at ``places`` for histories ``rows``, both int64 [E]."""

    def cells(self) -> tuple[Tensor, Tensor]:
        """List the history and the place of every number but zeros, both int64 [N]."""


@dataclass(frozen=True)
class Neighbours:
    """The nonzero values, and the decay of the sum above.

    * ``pointer``: int64 [n_items + 1]; item j owns the entries from ``pointer[j]`` on.
    * ``items``: int64 [N], the items i; ``values``: float32 [N].
    """

    pointer: Tensor
    items: Tensor
    values: Tensor
    decay: float

    @classmethod
    def of_matrix(cls, values: sparse.csr_matrix, decay: float) -> Neighbours:
        """Build from value(j, i) at row j and column i, [n_items, n_items]."""
        return cls(
            torch.from_numpy(values.indptr.astype("int64")),
            torch.from_numpy(values.indices.astype("int64")),
            torch.from_numpy(values.data.astype("float32")),
            decay,
        )

    def to(self, device: torch.device | str) -> Neighbours:
        """Return the same with its tensors on ``device``."""
        parts = self.pointer.to(device), self.items.to(device), self.values.to(device)
        return Neighbours(*parts, self.decay)

    def placed(self, places: Tensor) -> Neighbours:
        """Number the items i by ``places`` int64 [n_items], and leave out those with -1."""
        place = places[self.items]
        known = place >= 0
        if bool(known.all()):
            return replace(self, items=place)
        before = F.pad(known.cumsum(0), (1, 0))  # [N + 1]
        return Neighbours(before[self.pointer], place[known], self.values[known], self.decay)

    def bonus(self, n_items: int, histories: Tensor, lengths: Tensor, dtype: torch.dtype) -> Bonus:
        """Sum what each of the ``histories`` int64 [B, T] of ``lengths`` int64 [B] adds to items.

        ``n_items``: more than any of ``items``, by whose numbers the bonus is asked.
        """
        ago = lengths.unsqueeze(1) - 1 - torch.arange(histories.shape[1], device=lengths.device)
        row, column = (ago >= 0).nonzero().unbind(1)  # [E]
        chosen = histories[row, column]
        share = self.decay ** ago[row, column].to(dtype)  # [E]
        first = self.pointer[chosen]
        owner, entry = ragged.expand(first, self.pointer[chosen + 1] - first)  # [E']
        item, row = self.items.index_select(0, entry), row.index_select(0, owner)
        gain = self.values.index_select(0, entry).to(dtype) * share.index_select(0, owner)
        n = len(histories)
        if n_items * n <= _CELLS:  # far quicker than sorting, to the same bits
            table = torch.zeros(n_items, n, dtype=dtype, device=item.device)
            table.view(-1).index_add_(0, item * n + row, gain)
            return TableBonus(table)
        keys, where = torch.unique(row * n_items + item, return_inverse=True)
        values = torch.zeros(len(keys), dtype=dtype, device=keys.device)
        values.index_add_(0, where, gain)
        starts = torch.arange(n + 1, device=keys.device) * n_items
        return SparseBonus(torch.searchsorted(keys, starts), keys % n_items, values)


@dataclass(frozen=True)
class TableBonus:
    """A :class:`Bonus` as ``table`` [P, n], one row a place; P is at least the number of places."""

    table: Tensor

    def take(self, rows: Tensor | slice) -> TableBonus:
        return TableBonus(self.table[:, rows])

    def add_to(self, scores: Tensor) -> Tensor:
        return scores.add_(self.table[: len(scores)].to(scores.dtype))

    def at(self, rows: Tensor, places: Tensor, n_items: int) -> Tensor:
        return self.table[places, rows]

    def cells(self) -> tuple[Tensor, Tensor]:
        place, row = self.table.nonzero().unbind(1)
        return row, place


@dataclass(frozen=True)
class SparseBonus:
    """A :class:`Bonus` as a list of the numbers that are not zero.

    ``pointer`` int64 [n + 1]: history h owns the entries from ``pointer[h]`` on; ``places`` int64
    [N], ascending within a history, are the numbers of the items; ``values`` [N].
    """

    pointer: Tensor
    places: Tensor
    values: Tensor

    def take(self, rows: Tensor | slice) -> SparseBonus:
        counts = self.pointer.diff()[rows]
        _, entry = ragged.expand(self.pointer[:-1][rows], counts)
        pointer = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return replace(self, pointer=pointer, places=self.places[entry], values=self.values[entry])

    def add_to(self, scores: Tensor) -> Tensor:
        cells = self.places, self._rows()
        return scores.index_put_(cells, self.values.to(scores.dtype), accumulate=True)

    def at(self, rows: Tensor, places: Tensor, n_items: int) -> Tensor:
        if len(self.places) == 0:
            return self.values.new_zeros(len(rows))
        keys, asked = self._rows() * n_items + self.places, rows * n_items + places
        entry = torch.searchsorted(keys, asked).clamp(max=len(keys) - 1)
        return torch.where(keys[entry] == asked, self.values[entry], 0)

    def cells(self) -> tuple[Tensor, Tensor]:
        return self._rows(), self.places

    def _rows(self) -> Tensor:
        """Return the history of each entry, int64 [N]."""
        counts = self.pointer.diff()
        return torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
