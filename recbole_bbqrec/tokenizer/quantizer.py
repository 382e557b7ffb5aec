"""Residual quantization of several signals with shared or separate codebooks (Eqs. 5-7, 9)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_bbqrec.distributed.sums import total
from recbole_bbqrec.nn.kmeans import kmeans

SEARCH_ROWS = 8192  # rows compared at a time: 8192 x 256 codes x 4 bytes = 8 MiB


class Quantization(NamedTuple):
    """Output of :class:`ResidualQuantizer`; B rows, M signals, L levels, D dimensions."""

    quantized_ste: Tensor  # [B, M, D] value of ``quantized``, gradient of the input
    quantized: Tensor  # [B, M, D] sum of the chosen codes, no gradient
    codes: Tensor  # int64 [B, L, M]
    codebook_loss: Tensor  # [M] sum over levels of ||sg[r] - c||^2, mean over rows
    commitment_loss: Tensor  # [M] sum over levels of ||r - sg[c]||^2, mean over rows
    last_residual: Tensor  # [B, M, D] input of the last level, no gradient


def nearest_codes(points: Tensor, codebook: Tensor, block: int = SEARCH_ROWS) -> Tensor:
    """Find the nearest code by squared L2: points [S, R, D], codebook [S, N, D] -> int64 [S, R].

    Ties go to the lowest index. ||p||^2 is the same for every code and is not computed. Comparing
    ``block`` rows at a time bounds memory.
    """
    norms = codebook.pow(2).sum(-1).unsqueeze(1)  # [S, 1, N]
    blocks = [
        torch.baddbmm(norms, rows, codebook.transpose(1, 2), alpha=-2).argmin(-1)  # [S, r]
        for rows in torch.split(points, block, dim=1)
    ]
    return torch.cat(blocks, dim=1)


def perplexity(counts: Tensor) -> Tensor:
    """Return exp(entropy) of counts [..., N] of codes: [...].

    N when all codes are used alike, 1 when one is used, 0 when none is. Integer counts give
    float32, float64 counts float64.

    >>> perplexity(torch.tensor([[2, 2, 2, 2], [0, 5, 0, 0], [0, 0, 0, 0]])).tolist()
    [4.0, 1.0, 0.0]
    """
    total = counts.sum(-1, keepdim=True)
    share = counts / total.clamp(min=1)
    entropy = -torch.xlogy(share, share).sum(-1)
    return torch.where(total.squeeze(-1) > 0, entropy.exp(), torch.zeros_like(entropy))


class ResidualQuantizer(nn.Module):
    """L levels of N codes of D dimensions for M signals.

    ``n_codebook_sets`` is 1 (one set shared by all signals, the paper's form) or ``n_signals``
    (one set each). The residual r_{l+1} = r_l - sg[c_l] carries the input's gradient through all
    levels, so that the commitment loss of every level reaches the encoder. A straight-through
    estimator inside the residual would cancel it from the second level on.

    Buffers: ``initialised`` is true once k-means has run; it is saved, so that a reload does not
    run it again. ``usage`` int64 [L, M, N] counts the rows that chose each code in training since
    the last :meth:`reset_usage`.
    """

    initialised: Tensor
    usage: Tensor

    def __init__(
        self,
        levels: int,
        codebook_size: int,
        dim: int,
        n_signals: int = 1,
        n_codebook_sets: int = 1,
    ) -> None:
        super().__init__()
        if n_codebook_sets not in (1, n_signals):
            raise ValueError(
                f"n_codebook_sets must be 1 (shared) or {n_signals} (one for each signal), got "
                f"{n_codebook_sets}"
            )
        self.levels, self.codebook_size, self.dim = levels, codebook_size, dim
        self.n_signals, self.n_sets = n_signals, n_codebook_sets
        self.codebooks = nn.Parameter(torch.randn(n_codebook_sets, levels, codebook_size, dim))
        self.register_buffer("initialised", torch.tensor(False))
        self.register_buffer(
            "usage", torch.zeros(levels, n_signals, codebook_size, dtype=torch.int64)
        )

    def forward(self, z: Tensor, weights: Tensor | None = None) -> Quantization:
        """Quantize z [B, M, D]; ``weights`` [B, M] (bool or float) weigh the rows in the losses.

        A signal whose weights are all zero has loss zero. Autocast is off here, because bfloat16
        distances choose wrong codes.
        """
        with torch.autocast(device_type=z.device.type, enabled=False):
            return self._quantize(z.to(self.codebooks.dtype), weights)

    def _quantize(self, z: Tensor, weights: Tensor | None) -> Quantization:
        residual, total = z, torch.zeros_like(z)  # [B, M, D]
        zero = z.new_zeros(z.shape[:2])
        codebook_error, commitment_error = zero, zero  # [B, M]
        codes = []
        for level in range(self.levels):
            last_residual = residual.detach()
            chosen = self._search(last_residual, level)  # [B, M]
            code = self._look_up(chosen, level)  # [B, M, D]
            codebook_error = codebook_error + (last_residual - code).pow(2).sum(-1)
            commitment_error = commitment_error + (residual - code.detach()).pow(2).sum(-1)
            residual = residual - code.detach()
            total = total + code.detach()
            codes.append(chosen)
        stacked = torch.stack(codes, dim=1)  # [B, L, M]
        if self.training:
            self._count(stacked)
        return Quantization(
            quantized_ste=z + (total - z).detach(),
            quantized=total,
            codes=stacked,
            codebook_loss=_row_mean(codebook_error, weights),
            commitment_loss=_row_mean(commitment_error, weights),
            last_residual=last_residual,
        )

    @torch.no_grad()
    def _search(self, residual: Tensor, level: int) -> Tensor:
        """Find the nearest codes int64 [B, M] of one level for residuals [B, M, D]."""
        n_rows = residual.shape[0]
        codebook = self.codebooks[:, level]  # [S, N, D]
        if self.n_sets == 1:
            flat = residual.reshape(1, -1, self.dim)  # [1, B*M, D]
            return nearest_codes(flat, codebook).view(n_rows, -1)
        return nearest_codes(residual.transpose(0, 1), codebook).T  # [M, B] -> [B, M]

    def _look_up(self, chosen: Tensor, level: int) -> Tensor:
        """Return the vectors [B, M, D] of codes [B, M] of one level, differentiable."""
        sets = torch.arange(chosen.shape[1], device=chosen.device) % self.n_sets  # [M]
        rows = (sets * self.levels + level) * self.codebook_size + chosen  # [B, M]
        return F.embedding(rows, self.codebooks.view(-1, self.dim))

    def _count(self, codes: Tensor) -> None:
        signal = torch.arange(self.n_signals, device=codes.device)  # [M]
        level = torch.arange(self.levels, device=codes.device).unsqueeze(1)  # [L, 1]
        cells = (level * self.n_signals + signal) * self.codebook_size + codes  # [B, L, M]
        # Not bincount(), which makes the CPU wait for the largest number.
        flat = cells.flatten()
        self.usage.view(-1).index_add_(0, flat, torch.ones_like(flat))

    @torch.no_grad()
    def initialise(self, z: Tensor, seed: int) -> None:
        """Fit the codebooks level by level by k-means on the residuals of z [n, M, D].

        A shared set is fitted to all signals together, a separate set to its own signal.
        """
        residual = z.detach().to(self.codebooks)  # [n, M, D]
        for level in range(self.levels):
            for index in range(self.n_sets):
                points = residual if self.n_sets == 1 else residual[:, index]
                run = seed + level * self.n_sets + index
                centres = kmeans(points.reshape(-1, self.dim), self.codebook_size, run)
                self.codebooks[index, level] = centres.to(self.codebooks)
            residual = residual - self._look_up(self._search(residual, level), level)
        self.usage.zero_()
        self.initialised.fill_(True)

    def dead_codes(self) -> Tensor:
        """Mask bool [S, L, N] of codes that no signal of their set chose since the last reset."""
        if self.n_sets == 1:
            return self.usage.sum(1).unsqueeze(0) == 0
        return self.usage.transpose(0, 1) == 0

    @torch.no_grad()
    def restart_dead_codes(
        self, z: Tensor, present: Tensor, generator: torch.Generator
    ) -> list[int]:
        """Restart dead codes at random residuals of z [n, M, D]; return their number per level.

        A shared code gets a residual of the signal with the largest quantization error at that
        level, a separate one a residual of its own signal. Only rows that have the signal by
        ``present`` bool [n, M] are drawn: the others are all alike, and so would be their codes.
        Levels go in order, because new codes change the residuals below. ``generator`` must be on
        the CPU.
        """
        dead = self.dead_codes()
        residual = z.detach().to(self.codebooks)  # [n, M, D]
        for level in range(self.levels):
            after = residual - self._look_up(self._search(residual, level), level)
            worst = int(_row_mean(after.pow(2).sum(-1), present).argmax())
            for index in range(self.n_sets):
                count = int(dead[index, level].sum())
                signal = worst if self.n_sets == 1 else index
                having = present[:, signal].nonzero().squeeze(1)  # [n']
                if len(having) == 0:
                    having = torch.arange(len(residual), device=residual.device)
                rows = having[_sample_rows(len(having), count, generator).to(having.device)]
                self.codebooks[index, level, dead[index, level]] = residual[rows, signal]
            residual = residual - self._look_up(self._search(residual, level), level)
        return [int(n) for n in dead.sum(dim=(0, 2))]

    def reset_usage(self) -> None:
        """Set the usage counts to zero."""
        self.usage.zero_()

    def utilisation(self) -> Tensor:
        """Return the share of the N codes that each signal used since the last reset: [L, M]."""
        return (self.usage > 0).float().mean(-1)

    def perplexity(self) -> Tensor:
        """Return :func:`perplexity` of each signal's codes since the last reset: float32 [L, M]."""
        return perplexity(self.usage)


def _row_mean(errors: Tensor, weights: Tensor | None) -> Tensor:
    """Mean of errors [B, M] over the rows, weighted by weights [B, M]: [M].

    With weights and several processes, this one's part of the mean over the rows of all.
    """
    if weights is None:
        return errors.mean(0)
    weights = weights.to(errors.dtype)
    return (errors * weights).sum(0) / total(weights.sum(0)).clamp(min=1e-12)


def _sample_rows(n_rows: int, count: int, generator: torch.Generator) -> Tensor:
    """Draw ``count`` row numbers, without repetition if there are enough rows."""
    if count <= n_rows:
        return torch.randperm(n_rows, generator=generator)[:count]
    return torch.randint(n_rows, (count,), generator=generator)
