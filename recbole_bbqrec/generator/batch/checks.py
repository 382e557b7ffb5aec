"""Checks of histories and targets where they come in; the network trusts them."""

from __future__ import annotations

import torch
from torch import Tensor


def check_histories(items: Tensor, max_history: int) -> None:
    """Raise ValueError unless each row of ``items`` int64 [B, T] is a history padded with 0.

    A history holds 1 .. ``max_history`` items, and its padding lies on the right.
    """
    valid = items != 0  # [B, T]
    if items.shape[1] > max_history:
        raise ValueError(f"histories of {items.shape[1]} items: max_history is {max_history}")
    if not bool(valid[:, 0].all()) or bool((valid[:, 1:] & ~valid[:, :-1]).any()):
        raise ValueError("histories must be non-empty and padded on the right")


def check_targets(items: Tensor, targets: Tensor, encoding: str) -> None:
    """Raise ValueError unless ``targets`` int64 [B, T], 0 for none, stand where they may.

    ``items`` int64 [B, T]: the histories; ``encoding``: causal | bidirectional.
    """
    valid, mask = items != 0, targets != 0
    if not bool(mask.any()):
        raise ValueError("the batch has no targets")
    if bool((mask & ~valid).any()):
        raise ValueError("a target stands at a padded position")
    if encoding == "bidirectional":
        last = torch.arange(items.shape[1], device=items.device) == valid.sum(1)[:, None] - 1
        if not torch.equal(mask, last):
            raise ValueError(
                "bidirectional encoding admits one target a row, at the row's last item"
            )
