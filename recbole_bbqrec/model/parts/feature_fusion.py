"""Features of all items inside a model: scaled once, projected on demand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from recbole_bbqrec.nn.standardizer import Standardizer
from recbole_bbqrec.protocols import ItemDataset


class ProjectedFeatures(nn.Module):
    """One linear map per modality from pre-trained features to a common width.

    The scaled features are buffers outside the state dict: a loaded model reads them from the data
    set again. Without a modality, and for [PAD], the projection is exactly zero.

    Args:
        dataset: a ``MultiModalDataset`` that holds the named modalities.
        names: modalities in order, M of them.
        width: width F of every projection.
        scaling: ``zscore``, ``l2`` or ``none``, over the items that have the modality.
        std: standard deviation of the initial projections; give that of the item embedding
            beside them, so that neither drowns the other.
    """

    present: Tensor

    def __init__(
        self, dataset: ItemDataset, names: Sequence[str], width: int, scaling: str, std: float
    ) -> None:
        super().__init__()
        self.names, self.width = tuple(names), width
        masks = []
        self.projections = nn.ModuleList()
        for number, name in enumerate(self.names):
            features = dataset.item_features(name)
            scaled = Standardizer(features.matrix, features.present, scaling)(features.matrix)
            scaled = scaled * features.present.unsqueeze(1)  # [n_items, dim]; z-score moves zeros
            self.register_buffer(f"matrix_{number}", scaled, persistent=False)
            masks.append(features.present)
            projection = nn.Linear(features.dim, width)
            rms = float(scaled[features.present].pow(2).sum(1).mean().sqrt())  # length of a row
            nn.init.normal_(projection.weight, std=std / max(rms, 1e-6))
            nn.init.zeros_(projection.bias)
            self.projections.append(projection)
        self.register_buffer("present", torch.stack(masks, dim=1), persistent=False)

    def matrix(self, number: int) -> Tensor:
        """Return the scaled features of one modality, float32 [n_items, dim]."""
        return cast(Tensor, getattr(self, f"matrix_{number}"))

    def catalogue(self) -> Tensor:
        """Project every item, float [n_items, M, F]."""
        return self._project(None)

    def forward(self, items: Tensor) -> Tensor:
        """Project items int64 [...] -> [..., M, F], each distinct item once."""
        distinct, place = torch.unique(items, return_inverse=True)
        return self._project(distinct)[place]

    def _project(self, rows: Tensor | None) -> Tensor:
        chosen: Any = slice(None) if rows is None else rows
        projected = [
            projection(self.matrix(number)[chosen])  # [U, F]
            for number, projection in enumerate(self.projections)
        ]
        # Without features the projection is zero, bias included.
        return torch.stack(projected, dim=1) * self.present[chosen].unsqueeze(-1)  # [U, M, F]


class FusedItemEmbedding(nn.Embedding):
    """An item table whose lookup is ``Linear([embedding ; projected features])``.

    ``weight`` stays the plain table, with which a model scores.
    """

    def __init__(self, table: nn.Embedding, features: ProjectedFeatures) -> None:
        width = table.embedding_dim
        super().__init__(table.num_embeddings, width, padding_idx=table.padding_idx)
        self.weight = table.weight
        self.features = features
        self.mix = nn.Linear(width + len(features.names) * features.width, width)

    def forward(self, items: Tensor) -> Tensor:
        """Look up items int64 [B, T] -> fused input embeddings [B, T, E]."""
        sides = self.features(items).flatten(-2)  # [B, T, M * F]
        return self.mix(torch.cat([super().forward(items), sides], dim=-1))
