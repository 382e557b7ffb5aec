"""Dropout whose random numbers are cheap on a CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_INT64_MIN = -(2**63)


def keep_mask(shape: torch.Size, dropped_of_256: int, dtype: torch.dtype = torch.bool) -> Tensor:
    """Draw a mask of 1 and 0 on the CPU; a cell is 0 with probability dropped / 256.

    Eight cells share one 64-bit draw of torch's default generator. The draw spans the whole
    int64 range: the default range leaves the sign bit at 0, which would bias one byte in eight.
    """
    n = shape.numel()
    words = torch.empty((n + 7) // 8, dtype=torch.int64).random_(_INT64_MIN, None)
    mask = torch.empty(n, dtype=dtype)  # compare into it: a cast from bool would cost most
    return torch.ge(words.view(torch.uint8)[:n], dropped_of_256, out=mask).view(shape)


class Dropout(nn.Module):
    """Inverted dropout; on a CPU the rate is rounded to a multiple of 1/256.

    The scale is the reciprocal of the rounded keep probability, so the expectation is exact. A
    rate that rounds to 0 is the identity. On other devices this is ``F.dropout``.

    Raises ValueError when ``p`` is not in [0, 1).
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0.0 <= p < 1.0:
            raise ValueError(f"the dropout rate is {p!r}: it must be in [0, 1)")
        self.p = p
        self.dropped_of_256 = min(round(p * 256), 255)

    def forward(self, x: Tensor) -> Tensor:
        """Drop and rescale ``x`` (any shape, floating point) while training."""
        if not self.training or self.p == 0.0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        if self.dropped_of_256 == 0:
            return x
        scale = 256.0 / (256 - self.dropped_of_256)
        # Multiplying by the mask as numbers is faster than where() and masked_fill().
        return x * keep_mask(x.shape, self.dropped_of_256, x.dtype).mul_(scale)

    def extra_repr(self) -> str:
        return f"p={self.p}"


def replace_dropout(module: nn.Module) -> None:
    """Put :class:`Dropout` of the same rate in place of every ``nn.Dropout`` inside ``module``."""
    for name, child in module.named_children():
        if type(child) is nn.Dropout:
            setattr(module, name, Dropout(child.p))
        else:
            replace_dropout(child)
