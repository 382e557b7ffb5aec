"""Encode histories of similar length together: most are far shorter than the longest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

_ROWS = 256  # histories in one pass


def length_groups(lengths: Tensor, size: int) -> Iterator[tuple[Tensor, int]]:
    """Yield rows of similar length, ``size`` at a time, shortest first.

    Args:
        lengths: int64 [B].
        size: rows of a group, at least 1; the last group may be smaller.

    Yields:
        Row numbers int64 [b] and their greatest length. Every row comes once.
    """
    for rows in lengths.argsort(stable=True).split(size):
        yield rows, int(lengths[rows[-1]])


class InLengthGroups:
    """Base to put before a RecBole model class that encodes right-padded histories row by row.

    Its ``forward(item_seq, item_seq_len)`` must return the state after each history, whatever the
    padding. Only the time and the order of random draws (dropout) change.
    """

    def forward(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """Encode items int64 [B, T] with lengths int64 [B] -> states [B, H]."""
        encode: Any = super().forward  # type: ignore[misc]
        groups, states = [], []
        for rows, longest in length_groups(item_seq_len, _ROWS):
            groups.append(rows)
            states.append(encode(item_seq[rows, :longest], item_seq_len[rows]))
        return torch.cat(states)[torch.cat(groups).argsort()]
