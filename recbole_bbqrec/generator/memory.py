"""Encoded histories, which the decoder and the item head read."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from recbole_bbqrec.generator.packing import Packing


@dataclass(frozen=True)
class Memory:
    """An encoded batch of histories.

    * ``states``: [n, L, d], the encoder's output for the n items of the batch, packed. Here and
      below L is the number of tokens an item has in a history (``history_levels``).
    * ``cells``: where these items lie in the [B, T] grid.
    * ``items``: int64 [B, T], the histories; ``lengths``: int64 [B].
    * ``table``: projected token embeddings, computed once and shared with the decoder.
    """

    states: Tensor
    cells: Packing
    items: Tensor
    lengths: Tensor
    table: Tensor

    def padded(self) -> Tensor:
        """The states on the grid: [B, T * L, d], zero at padding."""
        return self.cells.unpack(self.states).flatten(1, 2)

    def last(self) -> Tensor:
        """The states of each history's last item: [B, L, d]."""
        return self.states.index_select(0, self.cells.last(self.lengths))


def check_histories(items: Tensor, max_history: int) -> Tensor:
    """Which places of ``items`` int64 [B, T] hold an item: bool [B, T]. Raises ValueError."""
    valid = items != 0  # [B, T]
    if items.shape[1] > max_history:
        raise ValueError(f"histories of {items.shape[1]} items: max_history is {max_history}")
    if not bool(valid[:, 0].all()) or bool((valid[:, 1:] & ~valid[:, :-1]).any()):
        raise ValueError("histories must be non-empty and padded on the right")
    return valid
