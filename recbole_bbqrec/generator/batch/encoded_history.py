"""Encoded histories, which the decoder and the item head read."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recbole_bbqrec.generator.batch.packing import Packing


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


def latest(items: Tensor, lengths: Tensor, most: int) -> Tensor:
    """The last ``most`` of each history, or all: int64 [B, T] -> [B, T'], right padded with 0.

    ``lengths`` int64 [B], of the histories in ``items``; T' is the longest of what is left.
    """
    lengths = lengths.to(items.device).clamp(max=items.shape[1])
    width = min(int(lengths.max()), most)
    start = (lengths - most).clamp(min=0)  # [B]
    place = start[:, None] + torch.arange(width, device=items.device)  # [B, T']
    inside = place < lengths[:, None]
    return items.gather(1, place.clamp(max=items.shape[1] - 1)).masked_fill(~inside, 0)


def check_targets(items: Tensor, wanted: Tensor, encoding: str) -> None:
    """Whether every place of ``wanted`` bool [B, T] may have a target. Raises ValueError.

    ``items`` int64 [B, T]; ``encoding``: causal | bidirectional.
    """
    valid = items != 0
    if not bool(wanted.any()):
        raise ValueError("the batch has no targets")
    if bool((wanted & ~valid).any()):
        raise ValueError("a target stands at a padded position")
    if encoding == "bidirectional":
        last = torch.arange(items.shape[1], device=items.device) == valid.sum(1)[:, None] - 1
        if not torch.equal(wanted, last):
            raise ValueError(
                "bidirectional encoding admits one target a row, at the row's last item"
            )
