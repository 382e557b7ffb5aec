"""Scaling of feature vectors, and the multi-layer perceptron that reads them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SCALINGS = ("zscore", "l2", "none")
FIT_ROWS = 4096  # rows converted to float64 at a time
MAX_ZSCORE = 10.0  # deviations; a rare binary feature could reach 100 and dominate the error


class Standardizer(nn.Module):
    """Scale feature vectors to unit mean square per dimension; statistics are buffers.

    "zscore": (x - mean) / deviation over the present items, clipped to +-10; a constant dimension
    becomes zero. "l2": each row gets length sqrt(dim). "none": unchanged.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, matrix: Tensor, present: Tensor, scaling: str = "zscore") -> None:
        """Take statistics of matrix float16/float32 [n_items, dim] where present bool [n_items]."""
        super().__init__()
        if scaling not in SCALINGS:
            raise ValueError(f"feature_scaling must be one of {SCALINGS}, got {scaling!r}")
        self.scaling = scaling
        dim = matrix.shape[1]
        mean, scale = torch.zeros(dim), torch.ones(dim)
        if scaling == "zscore" and bool(present.any()):
            mean, scale = _moments(matrix, present)
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        """Scale x [B, dim] of any float dtype; the result is float32, as the statistics are."""
        x = x.to(self.mean.dtype)
        if self.scaling == "zscore":
            return ((x - self.mean) * self.scale).clamp_(-MAX_ZSCORE, MAX_ZSCORE)
        if self.scaling == "l2":
            return F.normalize(x, dim=-1) * float(x.shape[-1] ** 0.5)
        return x


def _moments(matrix: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and reciprocal deviation over present rows, float32 [dim] each; 0 if constant."""
    rows = present.nonzero().squeeze(-1).split(FIT_ROWS)
    count = sum(len(block) for block in rows)
    mean = torch.stack([matrix[block].double().sum(0) for block in rows]).sum(0) / count
    squares = torch.stack([(matrix[block].double() - mean).pow(2).sum(0) for block in rows]).sum(0)
    deviation = (squares / count).sqrt()  # [dim]
    constant = deviation <= 1e-6 * mean.abs() + 1e-12
    scale = torch.where(constant, torch.zeros_like(deviation), 1 / deviation.clamp(min=1e-12))
    return mean.float(), scale.float()


def mlp(sizes: Sequence[int], dropout: float) -> nn.Sequential:
    """Build linear layers of the given widths with ReLU and dropout between them."""
    layers: list[nn.Module] = []
    for width_in, width_out in zip(sizes[:-1], sizes[1:]):
        if layers:
            layers.append(nn.ReLU())
            # The placeholder keeps the names of parameters the same without dropout.
            layers.append(nn.Dropout(dropout) if dropout > 0 else nn.Identity())
        layers.append(nn.Linear(width_in, width_out))
    return nn.Sequential(*layers)
