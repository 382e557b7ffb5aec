"""Encoded histories, which the decoder and the item head read."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recbole_bbqrec.generator.batch.packing import Packing
from recbole_bbqrec.generator.batch.token_table import TokenTable


@dataclass(frozen=True)
class Memory:
    """An encoded batch of histories.

    * ``states``: [n, L, d], the encoder's output for the n items of the batch, packed. Here and
      below L is the number of tokens an item has in a history (``history_levels``).
    * ``cells``: where these items lie in the [B, T] grid.
    * ``items``: int64 [B, T], the histories; ``lengths``: int64 [B].
    * ``table``: projected codes, computed once and shared with the decoder.
    """

    states: Tensor
    cells: Packing
    items: Tensor
    lengths: Tensor
    table: TokenTable

    def padded(self) -> Tensor:
        """Return the states on the grid: [B, T * L, d], zero at padding."""
        return self.cells.unpack(self.states).flatten(1, 2)

    def last(self) -> Tensor:
        """Return the states of each history's last item: [B, L, d]."""
        return self.states.index_select(0, self.cells.last(self.lengths))


def latest(items: Tensor, lengths: Tensor, most: int) -> Tensor:
    """Cut histories to their last ``most`` items: int64 [B, T] -> [B, T'], right padded with 0.

    ``lengths`` int64 [B]: those of the histories in ``items``; T' is the longest of the cut ones.
    """
    lengths = lengths.to(items.device).clamp(max=items.shape[1])
    width = min(int(lengths.max()), most)
    start = (lengths - most).clamp(min=0)  # [B]
    place = start[:, None] + torch.arange(width, device=items.device)  # [B, T']
    inside = place < lengths[:, None]
    return items.gather(1, place.clamp(max=items.shape[1] - 1)).masked_fill(~inside, 0)
