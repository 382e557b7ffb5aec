"""Signals of an item: the ID representation and one tower for each modality (Eqs. 2, 4)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_bbqrec.protocols import ID_SIGNAL
from recbole_bbqrec.tokenizer.bbq.encoders import ModalityTower
from recbole_bbqrec.tokenizer.bbq.settings import BBQSettings

# Initial deviation of embeddings, the paper's. LayerNorm removes the scale of z_ID, so this sets
# how fast its direction turns: the smaller, the sooner training replaces the random start.
ID_STD = 0.01
_EPS = 1e-12  # of LayerNorm; torch's default exceeds the variance of a new ID embedding
Features = Mapping[str, tuple[Tensor, Tensor]]  # name -> matrix [n_items, dim], present [n_items]
Inputs = dict[str, Tensor]  # name -> scaled features [U, dim]


class SignalEncoder(nn.Module):
    """Encode items as behaviour-aligned z [U, M, D] and, per modality, specific zbar [U, D].

    ``present`` bool [n_items, M] marks the signals that an item has. Where it is false (a missing
    modality, the ID of an item without training events) z is a learned vector.
    """

    present: Tensor

    def __init__(
        self, config: BBQSettings, features: Features, n_items: int, trained_items: Tensor
    ) -> None:
        super().__init__()
        _check(features, n_items, trained_items)
        self.modalities = tuple(features)
        self.signals = ((ID_SIGNAL,) if config.use_id else ()) + self.modalities
        if not self.signals:
            raise ValueError("no signal is left: use_id is false and there is no modality")
        self.dim = config.codebook_dim
        masks = [trained_items.bool()] if config.use_id else []
        masks += [present.bool() for _, present in features.values()]
        self.register_buffer("present", torch.stack(masks, dim=1), persistent=False)
        self.missing = nn.Parameter(torch.randn(len(self.signals), self.dim))
        self.id_embedding: nn.Embedding | None = None
        if config.use_id:
            self.id_embedding = nn.Embedding(n_items, self.dim)
            nn.init.normal_(self.id_embedding.weight, std=ID_STD)
        self.towers = nn.ModuleDict(
            {
                name: ModalityTower(
                    matrix, present.bool(), hidden=config.encoder_hidden, out_dim=self.dim,
                    dropout=config.dropout, scaling=config.feature_scaling,
                    with_specific=config.use_mim,
                )
                for name, (matrix, present) in features.items()
            }
        )  # fmt: skip

    def tower(self, name: str) -> ModalityTower:
        """Return the tower of one modality."""
        return cast(ModalityTower, self.towers[name])

    def inputs(self, items: Tensor) -> Inputs:
        """Scaled features of items int64 [U] by modality."""
        return {name: self.tower(name).inputs(items) for name in self.modalities}

    def behaviour(self, items: Tensor, inputs: Inputs) -> Tensor:
        """Return z [U, M, D]; each signal has zero mean and unit variance per row."""
        signals = []
        if self.id_embedding is not None:
            # The encoders end in a LayerNorm: this one gives the embedding the same scale.
            signals.append(F.layer_norm(self.id_embedding(items), (self.dim,), eps=_EPS))
        signals += [self.tower(name).behaviour(inputs[name]) for name in self.modalities]
        missing = F.layer_norm(self.missing, (self.dim,))  # [M, D]
        z = torch.stack(signals, dim=1)  # [U, M, D]
        return torch.where(self.present[items].unsqueeze(-1), z, missing)

    def specific(self, inputs: Inputs) -> dict[str, Tensor]:
        """Return zbar [U, D] by modality; empty without disentangling."""
        towers = {name: self.tower(name).specific for name in inputs}
        return {name: tower(inputs[name]) for name, tower in towers.items() if tower is not None}


def _check(features: Features, n_items: int, trained_items: Tensor) -> None:
    """Raise ValueError for names, shapes or dtypes that the network cannot use."""
    if tuple(trained_items.shape) != (n_items,):
        raise ValueError(f"trained_items must be [{n_items}], got {tuple(trained_items.shape)}")
    for name, (matrix, present) in features.items():
        # Names become module names and keys of losses.
        if name == ID_SIGNAL or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name):
            raise ValueError(f"a modality cannot be called {name!r}")
        if matrix.dim() != 2 or len(matrix) != n_items or tuple(present.shape) != (n_items,):
            raise ValueError(
                f"modality {name!r}: expected a matrix [{n_items}, dim] and a mask [{n_items}], "
                f"got {tuple(matrix.shape)} and {tuple(present.shape)}"
            )
        if not matrix.is_floating_point():
            raise ValueError(f"modality {name!r}: the matrix must be floating point")
