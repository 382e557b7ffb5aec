"""Optimized product quantization: a rotation and one codebook per slice of the rotated vector.

Ge et al., "Optimized Product Quantization", TPAMI 2014, in the non-parametric form: rotation and
codebooks are improved in turn, and neither step can raise the reconstruction error.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits
from torch import Tensor

from recbole_bbqrec.nn.kmeans import kmeans
from recbole_bbqrec.tokenizer.quantizer import nearest_codes

_BLOCK_CELLS = 1 << 24  # distances held at a time, 64 MiB of float32


@dataclass(frozen=True)
class ProductQuantizer:
    """A fitted quantizer of vectors of width ``dim``.

    Attributes:
        rotation: float32 [W, W], orthogonal; W is ``dim`` rounded up to a multiple of M.
        codebooks: float32 [M, K, W / M].
        dim: width of the vectors; they are padded with zeros to W.
        errors: mean squared reconstruction error per vector, before and after each iteration.
    """

    rotation: Tensor
    codebooks: Tensor
    dim: int
    errors: tuple[float, ...]

    def encode(self, vectors: Tensor) -> Tensor:
        """Encode vectors float [n, dim] as the nearest codes int64 [n, M] of rotated slices."""
        rotated = _pad(vectors, self.rotation) @ self.rotation  # [n, W]
        return _assign(_slices(rotated, self.codebooks), self.codebooks)

    def decode(self, codes: Tensor) -> Tensor:
        """Reconstruct vectors float32 [n, dim] from codes int64 [n, M]."""
        return (_look_up(self.codebooks, codes) @ self.rotation.T)[:, : self.dim]


def whiten(vectors: Tensor, present: Tensor, components: int) -> Tensor:
    """Project on the first principal components, each of variance one over the present rows.

    vectors float [n, dim], present bool [n] -> float32 [n, C]; C is ``components``, or fewer if
    there are fewer present rows or dimensions. Quantization then spends as much on a direction in
    which the texts hardly differ as on the widest one.
    """
    data = vectors.detach().to("cpu", torch.float64).numpy()
    known = data[present.cpu().numpy()]
    model = PCA(min(components, *known.shape), whiten=True, svd_solver="full")
    with threadpool_limits(limits=1):  # the order of a sum depends on the threads
        model.fit(known)
        return torch.from_numpy(model.transform(data)).float()


def fit_opq(
    vectors: Tensor, n_digits: int, codebook_size: int, *, iterations: int = 10, seed: int = 0
) -> ProductQuantizer:
    """Fit M = ``n_digits`` codebooks of ``codebook_size`` codes and a rotation.

    The codebooks start from k-means on the unrotated slices (plain product quantization); each
    iteration then makes one Lloyd step in every slice, solves the orthogonal Procrustes problem
    for the rotation, and assigns the codes anew. ``iterations=0`` is plain product quantization.
    The same vectors and seed give the same result.

    Raises:
        ValueError: there are no vectors, they are not finite, or a number is out of range.
    """
    if vectors.dim() != 2 or len(vectors) == 0 or not bool(torch.isfinite(vectors).all()):
        raise ValueError(f"OPQ needs finite vectors [n >= 1, dim], got {tuple(vectors.shape)}")
    if not 1 <= n_digits <= vectors.shape[1] or codebook_size < 1 or iterations < 0:
        raise ValueError(
            f"OPQ needs 1 <= n_digits <= {vectors.shape[1]}, codebook_size >= 1 and iterations "
            f">= 0; got {n_digits}, {codebook_size}, {iterations}"
        )
    dim = vectors.shape[1]
    width = -(-dim // n_digits) * n_digits
    rotation = torch.eye(width)
    data = _pad(vectors.detach().to("cpu", torch.float32), rotation)  # [n, W]
    slices = data.view(len(data), n_digits, -1).transpose(0, 1)  # [M, n, W / M]
    codebooks = torch.stack([kmeans(s, codebook_size, seed + m) for m, s in enumerate(slices)])
    codes = _assign(slices, codebooks)
    errors = [_error(data, codebooks, codes)]
    for _ in range(iterations):
        codebooks = _lloyd(slices, codebooks, codes)
        rotation = _procrustes(data, _look_up(codebooks, codes))
        rotated = data @ rotation  # [n, W]
        slices = _slices(rotated, codebooks)
        codes = _assign(slices, codebooks)
        errors.append(_error(rotated, codebooks, codes))
    return ProductQuantizer(rotation, codebooks, dim, tuple(errors))


def _pad(vectors: Tensor, rotation: Tensor) -> Tensor:
    """Append zero dimensions: [n, dim] -> float32 [n, W]."""
    missing = rotation.shape[0] - vectors.shape[1]
    return torch.nn.functional.pad(vectors.to(rotation), (0, missing))


def _slices(rotated: Tensor, codebooks: Tensor) -> Tensor:
    """Cut rotated vectors [n, W] into slices [M, n, W / M]."""
    return rotated.view(len(rotated), codebooks.shape[0], -1).transpose(0, 1)


def _assign(slices: Tensor, codebooks: Tensor) -> Tensor:
    """Find the nearest codes int64 [n, M] of slices [M, n, s] in codebooks [M, K, s]."""
    rows = max(1, _BLOCK_CELLS // (codebooks.shape[0] * codebooks.shape[1]))
    return nearest_codes(slices, codebooks, rows).T


def _look_up(codebooks: Tensor, codes: Tensor) -> Tensor:
    """Reconstruct rotated vectors [n, W] from codes int64 [n, M]."""
    digit = torch.arange(codebooks.shape[0], device=codes.device)
    return codebooks[digit, codes].flatten(1)


def _lloyd(slices: Tensor, codebooks: Tensor, codes: Tensor) -> Tensor:
    """Move each code to the mean of its points; a code without points stays."""
    digits, size, width = codebooks.shape
    place = codes.T + size * torch.arange(digits).unsqueeze(1)  # [M, n] rows of a flat table
    sums = torch.zeros(digits * size, width, dtype=torch.float64)
    sums.index_add_(0, place.reshape(-1), slices.reshape(-1, width).double())
    counts = torch.bincount(place.reshape(-1), minlength=digits * size).unsqueeze(1)  # [M * K, 1]
    means = (sums / counts.clamp(min=1)).float()
    return torch.where(counts > 0, means, codebooks.reshape(-1, width)).view_as(codebooks)


def _procrustes(data: Tensor, target: Tensor) -> Tensor:
    """Find the orthogonal R [W, W] of least |data @ R - target|; data, target [n, W]."""
    left, _, right = torch.linalg.svd(data.double().T @ target.double())
    return (left @ right).float()


def _error(rotated: Tensor, codebooks: Tensor, codes: Tensor) -> float:
    """Mean squared distance of the vectors to their reconstructions."""
    return float((rotated - _look_up(codebooks, codes)).double().pow(2).sum(1).mean())
