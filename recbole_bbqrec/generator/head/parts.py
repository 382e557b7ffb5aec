"""Scores that are computed some targets at a time, so that memory is bounded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils.checkpoint import checkpoint

KEYS_AT_ONCE = 1 << 24  # numbers in gathered keys held at a time


def in_parts(several: bool, function: Callable[..., Tensor], *arguments: Any) -> Tensor:
    """Call ``function``; with ``several`` parts, recompute this one in the backward pass."""
    if not several:
        return function(*arguments)
    value: Tensor = checkpoint(function, *arguments, use_reentrant=False)
    return value
