"""The items of training whose features are nearest to those of new items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_bbqrec.upkeep.settings import NEAREST

_CELLS = 1 << 25  # cosines in memory at a time


@dataclass(frozen=True)
class Nearest:
    """Nearest items of training of m new items, int64 [m, k], and weights, float32 [m, k].

    Weights are cosines, at least 0, that sum to 1; a row of zeros where no item is similar.
    """

    items: Tensor
    weights: Tensor

    def mean(self, table: Tensor) -> Tensor:
        """Return the weighted means of rows of ``table`` [n_items, d]: [m, d]."""
        return (table[self.items] * self.weights.unsqueeze(-1).to(table)).sum(1)

    @property
    def found(self) -> Tensor:
        """Mask bool [m] of the items that have a similar one."""
        return self.weights.any(1)


def nearest_trained(
    features: Sequence[Tensor], trained: Tensor, new: Tensor, count: int = NEAREST
) -> Nearest:
    """Find the ``count`` nearest items.

    Args:
        features: float32 [n_items, F_m] of each modality, zero for items without it. The
            similarity of two items is the mean of their cosines over the new item's modalities.
        trained: bool [n_items], items to choose from.
        new: int64 [m], items to find neighbours of.
        count: k; fewer where there are fewer items.

    >>> features = [torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [2.0, 2.0]])]
    >>> trained = torch.tensor([False, True, True, False])
    >>> nearest_trained(features, trained, torch.tensor([3]), count=2).weights
    tensor([[0.5000, 0.5000]])
    """
    candidates = trained.nonzero().squeeze(1)
    units = [F.normalize(part.float(), dim=1) for part in features]
    items, weights = [], []
    for rows in new.split(max(1, _CELLS // max(1, len(candidates)))):
        cosines = torch.stack([unit[rows] @ unit[candidates].t() for unit in units])
        having = torch.stack([unit[rows].any(1) for unit in units]).sum(0).clamp(min=1)
        best = (cosines.sum(0) / having.unsqueeze(1)).topk(min(count, len(candidates)), dim=1)
        positive = best.values.clamp(min=0)
        items.append(candidates[best.indices])
        weights.append(positive / positive.sum(1, keepdim=True).clamp(min=1e-12))
    return Nearest(torch.cat(items), torch.cat(weights))
