"""Losses that tokenizers share: the CLUB bound (Eq. 3) and InfoNCE (Eqs. 11-12)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from recbole_bbqrec.distributed.sums import total
from recbole_bbqrec.nn.transfer import send

REDUCTIONS = ("mean", "sum")


def info_nce(
    states: Tensor,
    target_vectors: Tensor,
    target_ids: Tensor,
    temperature: float,
    own: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of cos(h_p, v) / temperature over the targets of P positions (Eq. 12).

    states [P, V], target_vectors [P, V], target_ids int64 [P] -> loss [P], float32 or wider. The
    candidates are the DISTINCT targets: an item that is the target of several positions is one
    candidate. So it is never its own negative, and repeating it changes no loss, as if every
    repetition were masked with minus infinity. Rows with the same id must hold the same vector.
    With ``own`` int64 [p] the states [p, V] are those of these positions alone, and the loss is
    [p]; the candidates remain. Wherever the states are, ids on the CPU spare it a wait.
    """
    with torch.autocast(device_type=states.device.type, enabled=False):
        if states.dtype != torch.float64:
            states, target_vectors = states.float(), target_vectors.float()
        distinct, label = torch.unique(target_ids, return_inverse=True)  # [C], [P]
        row = torch.empty_like(distinct)
        row[label] = torch.arange(len(label), device=label.device)  # a row of each item
        label = label if own is None else label[own.to(label.device)]
        row, label = send((row, label), states.device)
        candidates = F.normalize(target_vectors[row], dim=-1)  # [C, V]
        logits = F.normalize(states, dim=-1) @ candidates.T / temperature  # [P, C]
        return F.cross_entropy(logits, label, reduction="none")


class ClubEstimator(nn.Module):
    """Gaussian q(zbar | z) with an MLP for the mean and one for a log-variance within (-1, 1).

    ``reduction`` "sum" adds the log-density over the dimensions of zbar, as Eq. 3 is printed.
    "mean" (the default) averages it, as the reconstruction error is averaged, so that with
    gamma = 1 the bound does not drown that error. Both methods omit constants that cancel in the
    bound.
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
        """Mean and log-variance [B, zbar_dim] of zbar given z [B, z_dim]."""
        return self.mean(z), self.log_variance(z)

    def negative_log_likelihood(
        self, z: Tensor, zbar: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Return the scalar to minimise over q's parameters; the inputs are detached.

        z [B, z_dim], zbar [B, zbar_dim], mask bool [B] of the rows that count.
        """
        mean, log_variance = (part.to(zbar.dtype) for part in self(z.detach()))
        error = (zbar.detach() - mean).pow(2)  # [B, zbar_dim]
        density = 0.5 * (error * torch.exp(-log_variance) + log_variance)
        return masked_mean(self._reduce(density), _ones_or(mask, density))

    def upper_bound(self, z: Tensor, zbar: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the scalar bound of I(z; zbar), Eq. 3, differentiable in z and zbar, not in q.

        The negatives are all rows j of the batch, those of all processes, i included. They cost
        O(B D), because the mean of (zbar_j - mean_i)^2 over j is Var(zbar) + (E[zbar] - mean_i)^2
        and the log-variances cancel. q uses detached copies of its parameters, so that it gets no
        gradient and keeps its flags. Rows outside ``mask`` (bool [B]) are ignored.
        """
        frozen = {name: value.detach() for name, value in self.named_parameters()}
        mean, log_variance = (part.to(zbar.dtype) for part in functional_call(self, frozen, (z,)))
        weights = _ones_or(mask, zbar)  # [B]
        share = (weights / total(weights.sum()).clamp(min=1)).unsqueeze(-1)  # [B, 1]
        centre = total((share * zbar).sum(0))  # [zbar_dim]
        variance = total((share * (zbar - centre).pow(2)).sum(0))  # [zbar_dim]
        positive = (zbar - mean).pow(2)  # [B, zbar_dim]
        negative = variance + (centre - mean).pow(2)  # [B, zbar_dim]
        difference = 0.5 * (negative - positive) * torch.exp(-log_variance)
        return masked_mean(self._reduce(difference), weights)

    def _reduce(self, values: Tensor) -> Tensor:
        return values.mean(-1) if self.reduction == "mean" else values.sum(-1)


def _ones_or(mask: Tensor | None, like: Tensor) -> Tensor:
    """Row weights [B] in the dtype of ``like``: the mask, or ones."""
    return like.new_ones(like.shape[0]) if mask is None else mask.to(like.dtype)


def masked_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Mean of values [B] under 0/1 weights [B]; zero if all weights are.

    Of several processes, this one's part of the mean over the rows of all.
    """
    return (values * weights).sum() / total(weights.sum()).clamp(min=1)
