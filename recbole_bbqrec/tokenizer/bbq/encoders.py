"""Encoding and decoding of one modality's feature vectors (Eqs. 2 and 8)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recbole_bbqrec.nn.standardizer import Standardizer, mlp


class ModalityEncoder(nn.Module):
    """Encode feature vectors [B, dim] as [B, D], each row of zero mean and unit variance.

    The last LayerNorm has no learned scale, so that all signals have the same length and the
    mutual-information bound cannot be lowered by a longer zbar.
    """

    def __init__(self, dim: int, hidden: Sequence[int], out_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = mlp([dim, *hidden, out_dim], dropout)
        self.norm = nn.LayerNorm(out_dim, elementwise_affine=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.layers(x).to(x.dtype))  # float32 under autocast too


class ModalityDecoder(nn.Module):
    """Mirror of :class:`ModalityEncoder`: reconstruct [B, dim] from [B, in_dim] (Eq. 8)."""

    def __init__(self, in_dim: int, hidden: Sequence[int], dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = mlp([in_dim, *reversed(hidden), dim], dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class ModalityTower(nn.Module):
    """Features, scaling, encoders and decoder of one modality.

    ``behaviour`` is the paper's TB / IB and ``specific`` its TS / IS. Without disentangling
    ``specific`` is None and the decoder reads the quantized vector alone. The feature matrix
    keeps its stored dtype, is converted batch by batch, and stays out of the state dict.
    """

    matrix: Tensor

    def __init__(
        self, matrix: Tensor, present: Tensor, *, hidden: Sequence[int], out_dim: int,
        dropout: float, scaling: str, with_specific: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        dim = matrix.shape[1]
        self.register_buffer("matrix", matrix, persistent=False)
        self.standardizer = Standardizer(matrix, present, scaling)
        self.behaviour = ModalityEncoder(dim, hidden, out_dim, dropout)
        self.specific: ModalityEncoder | None = None
        if with_specific:
            self.specific = ModalityEncoder(dim, hidden, out_dim, dropout)
        self.decoder = ModalityDecoder(out_dim * (2 if with_specific else 1), hidden, dim, dropout)

    def inputs(self, items: Tensor) -> Tensor:
        """Scaled features float32 [U, dim] of items int64 [U]."""
        return self.standardizer(self.matrix[items])

    def reconstruct(self, quantized: Tensor, zbar: Tensor | None) -> Tensor:
        """Decode q [U, D] and zbar [U, D] (None without disentangling) to xhat [U, dim] (Eq. 8)."""
        return self.decoder(quantized if zbar is None else torch.cat([quantized, zbar], dim=-1))
