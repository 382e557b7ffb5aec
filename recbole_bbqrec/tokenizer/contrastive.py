"""The sequence-to-item contrastive objective (Eqs. 11-12)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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
