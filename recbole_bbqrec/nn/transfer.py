"""Copies from the CPU to a device that do not make the CPU wait."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def send(value: T, device: torch.device) -> T:
    """Return ``value`` with its tensors on ``device``.

    ``value`` is a tensor, something with a method ``to``, or a tuple or list of such; anything else
    stays as it is. Only a copy from pinned memory lets the CPU go on, so tensors for a GPU pass
    through it; the allocator keeps it for the next batch.

    >>> send((torch.tensor([1, 2]), 3), torch.device("cpu"))
    (tensor([1, 2]), 3)
    """
    sent: Any = value
    if isinstance(value, Tensor):
        if device.type == "cuda" and value.device.type == "cpu":
            sent = value.pin_memory()
        sent = sent.to(device, non_blocking=True)
    elif isinstance(value, (tuple, list)):
        parts = (send(part, device) for part in value)
        sent = type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    elif hasattr(value, "to"):
        sent = value.to(device)
    return sent  # type: ignore[no-any-return]
