"""Losses that tokenizers share: the CLUB bound (Eq. 3) and InfoNCE (Eqs. 11-12)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

REDUCTIONS = ("mean", "sum")


def info_nce(
    states: Tensor, target_vectors: Tensor, target_ids: Tensor, temperature: float
) -> Tensor:
    """Eq. 12 for P positions: cross-entropy of cos(h_p, v) / temperature over the batch's targets.

    states [P, V], target_vectors [P, V], target_ids int64 [P] -> loss per position, float32 or
    wider [P]. The candidates are the batch's DISTINCT targets: an item that is the target of
    several positions is one candidate, so it is never its own negative, and repeating it changes
    neither its own loss nor that of any other position. (This equals masking every repetition
    with minus infinity.) Rows with the same id must hold the same vector.
    """
    with torch.autocast(device_type=states.device.type, enabled=False):
        if states.dtype != torch.float64:
            states, target_vectors = states.float(), target_vectors.float()
        distinct, label = torch.unique(target_ids, return_inverse=True)  # [C], [P]
        row = torch.empty_like(distinct)
        row[label] = torch.arange(len(label), device=label.device)  # one row that holds the item
        candidates = F.normalize(target_vectors[row], dim=-1)  # [C, V]
        logits = F.normalize(states, dim=-1) @ candidates.T / temperature  # [P, C]
        return F.cross_entropy(logits, label, reduction="none")


class ClubEstimator(nn.Module):
    """Gaussian q(zbar | z) with an MLP for the mean and one for a log-variance within (-1, 1).

    ``reduction`` says how the log-density is taken over the dimensions of zbar. "sum" is Eq. 3 as
    printed; "mean" (the default) divides it by the dimension, so that with gamma = 1 the bound is
    of the order of the reconstruction error, which is a mean over dimensions too, and does not
    drown it. Constants that cancel in the bound are left out of both methods.
    """

    def __init__(self, z_dim: int, zbar_dim: int, hidden: int, reduction: str = "mean") -> None:
        super().__init__()
        if reduction not in REDUCTIONS:
            raise ValueError(f"reduction must be one of {REDUCTIONS}, got {reduction!r}")
        self.reduction = reduction
        self.mean = nn.Sequential(nn.Linear(z_dim, hidden), nn.ReLU(), nn.Linear(hidden, zbar_dim))
        self.log_variance = nn.Sequential(
            nn.Linear(z_dim, hidden), nn.ReLU(), nn.Linear(hidden, zbar_dim), nn.Tanh()
        )

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """z [B, z_dim] -> mean and log-variance of zbar given z, each [B, zbar_dim]."""
        return self.mean(z), self.log_variance(z)

    def negative_log_likelihood(
        self, z: Tensor, zbar: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Scalar to minimise over q's parameters; inputs are detached here.

        z [B, z_dim], zbar [B, zbar_dim], mask bool [B] of the rows that count.
        """
        mean, log_variance = (part.to(zbar.dtype) for part in self(z.detach()))
        error = (zbar.detach() - mean).pow(2)  # [B, zbar_dim]
        density = 0.5 * (error * torch.exp(-log_variance) + log_variance)
        return _masked_mean(self._reduce(density), _ones_or(mask, density))

    def upper_bound(self, z: Tensor, zbar: Tensor, mask: Tensor | None = None) -> Tensor:
        """Scalar bound of I(z; zbar), Eq. 3, differentiable in z and zbar but not in q.

        The negatives run over every row j of the batch, i included, in O(B D): averaged over j,
        (zbar_j - mean_i)^2 is Var(zbar) + (E[zbar] - mean_i)^2, and the log-variances cancel.
        q is evaluated with detached copies of its parameters, so no gradient can reach it and
        none of its flags is touched. Rows outside ``mask`` (bool [B]) take no part at all.
        """
        frozen = {name: value.detach() for name, value in self.named_parameters()}
        mean, log_variance = (part.to(zbar.dtype) for part in functional_call(self, frozen, (z,)))
        weights = _ones_or(mask, zbar)  # [B]
        share = (weights / weights.sum().clamp(min=1)).unsqueeze(-1)  # [B, 1]
        centre = (share * zbar).sum(0)  # [zbar_dim]
        variance = (share * (zbar - centre).pow(2)).sum(0)  # [zbar_dim]
        positive = (zbar - mean).pow(2)  # [B, zbar_dim]
        negative = variance + (centre - mean).pow(2)  # [B, zbar_dim]
        difference = 0.5 * (negative - positive) * torch.exp(-log_variance)
        return _masked_mean(self._reduce(difference), weights)

    def _reduce(self, values: Tensor) -> Tensor:
        return values.mean(-1) if self.reduction == "mean" else values.sum(-1)


def _ones_or(mask: Tensor | None, like: Tensor) -> Tensor:
    """Row weights [B] in ``like``'s dtype: the mask, or ones."""
    return like.new_ones(like.shape[0]) if mask is None else mask.to(like.dtype)


def _masked_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Mean of values [B] under 0/1 weights [B]; zero when no row counts."""
    return (values * weights).sum() / weights.sum().clamp(min=1)
