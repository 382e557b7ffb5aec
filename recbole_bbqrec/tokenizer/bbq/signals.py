"""The signals of an item: ID representation and one tower per modality (Eqs. 2 and 4)."""

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

# The paper's initial scale of embeddings. LayerNorm removes the scale of z_ID, so this sets how
# fast its direction can turn in training: the smaller, the sooner behaviour replaces chance.
ID_STD = 0.01
_EPS = 1e-12  # below the variance of a fresh ID embedding, unlike torch's default
Features = Mapping[str, tuple[Tensor, Tensor]]  # name -> matrix [n_items, dim], present [n_items]
Inputs = dict[str, Tensor]  # name -> scaled features [U, dim]


class SignalEncoder(nn.Module):
    """Items -> behaviour-aligned z [U, M, D] and modality-specific zbar [U, D] per modality.

    ``present`` bool [n_items, M] says which signals an item really has; where it is false (a
    missing modality, the ID of an item that does not occur in training) z is a learned vector.
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
        """The tower of one modality."""
        return cast(ModalityTower, self.towers[name])

    def inputs(self, items: Tensor) -> Inputs:
        """Items int64 [U] -> scaled features of every modality."""
        return {name: self.tower(name).inputs(items) for name in self.modalities}

    def behaviour(self, items: Tensor, inputs: Inputs) -> Tensor:
        """z [U, M, D]: every signal at zero mean and unit variance per row."""
        signals = []
        if self.id_embedding is not None:
            # The encoders end in a LayerNorm; the same one brings the embedding to their scale.
            signals.append(F.layer_norm(self.id_embedding(items), (self.dim,), eps=_EPS))
        signals += [self.tower(name).behaviour(inputs[name]) for name in self.modalities]
        missing = F.layer_norm(self.missing, (self.dim,))  # [M, D]
        z = torch.stack(signals, dim=1)  # [U, M, D]
        return torch.where(self.present[items].unsqueeze(-1), z, missing)

    def specific(self, inputs: Inputs) -> dict[str, Tensor]:
        """zbar [U, D] per modality; empty without disentangling."""
        towers = {name: self.tower(name).specific for name in inputs}
        return {name: tower(inputs[name]) for name, tower in towers.items() if tower is not None}


def _check(features: Features, n_items: int, trained_items: Tensor) -> None:
    """Raise ValueError unless names, shapes and dtypes are those the network expects."""
    if tuple(trained_items.shape) != (n_items,):
        raise ValueError(f"trained_items must be [{n_items}], got {tuple(trained_items.shape)}")
    for name, (matrix, present) in features.items():
        # Names become module names and parts of the loss keys.
        if name == ID_SIGNAL or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name):
            raise ValueError(f"a modality cannot be called {name!r}")
        if matrix.dim() != 2 or len(matrix) != n_items or tuple(present.shape) != (n_items,):
            raise ValueError(
                f"modality {name!r}: expected a matrix [{n_items}, dim] and a mask [{n_items}], "
                f"got {tuple(matrix.shape)} and {tuple(present.shape)}"
            )
        if not matrix.is_floating_point():
            raise ValueError(f"modality {name!r}: the matrix must be floating point")
