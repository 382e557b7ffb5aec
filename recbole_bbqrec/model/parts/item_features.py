"""Item features as phase two and the neighbours read them: scaled and narrowed.

Features of a modality reach the ranking on three roads: through the tokenizer's codes, as these
features in the encoder and the item head, and through the similarity of neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits
from torch import Tensor

from recbole_bbqrec.model.settings import FeatureSettings
from recbole_bbqrec.nn.standardizer import Standardizer
from recbole_bbqrec.protocols import ItemDataset

_RIDGE = 0.01  # of the mean variance, added to each: narrower directions are noise


def item_features(
    dataset: ItemDataset, names: Sequence[str], settings: FeatureSettings
) -> list[Tensor]:
    """Return the features of all items, float32 [n_items, F_m] for each modality of ``names``.

    Each modality is scaled over the items that have it, cut to its first ``feature_components``
    principal components where it is wider, and brought to a mean square of one;
    ``feature_whitening`` makes all its principal components about equally wide. Rows of items that
    lack it, and of [PAD], are zero.

    Scaling and components are fitted to the items that the run was trained with: items added to it
    (``dataset.added_items``) are mapped by them and change no other item's features.

    ``dataset``: a ``MultiModalDataset`` that holds the modalities ``names``.
    """
    scaling, components = settings.feature_scaling, settings.feature_components
    whitening = settings.feature_whitening
    parts = []
    for name in names:
        source = dataset.item_features(name)
        later = getattr(dataset, "added_items", torch.zeros_like(source.present))
        fitted, added = source.present & ~later, source.present & later
        scaled = Standardizer(source.matrix, fitted, scaling)(source.matrix)
        known, new = scaled[fitted], scaled[added]  # [n, dim]
        if len(known) > 1 and (whitening or known.shape[1] > components):
            known, new = _principal(known, new, components, whitening)
        size = known.square().mean().sqrt().clamp(min=1e-12)
        part = known.new_zeros(len(scaled), known.shape[1])
        part[fitted], part[added] = known / size, new / size
        parts.append(part)
    return parts


def _principal(
    rows: Tensor, new: Tensor, components: int, whitening: bool
) -> tuple[Tensor, Tensor]:
    """Return principal components [n, C] of ``rows`` [n, dim], C <= n, dim, and those of ``new``.

    Deterministic. ``new`` [m, dim] has no part in the fit.
    """
    count = min(components, *rows.shape)
    solver = "randomized" if count < rows.shape[1] else "full"
    model = PCA(count, svd_solver=solver, random_state=0)
    # One thread: more add up in another order. Equal rows make 0 / 0 shares of variance.
    with threadpool_limits(limits=1), np.errstate(invalid="ignore"):
        scores = model.fit_transform(rows.float().numpy())  # [n, C]
        others = model.transform(new.float().numpy()) if len(new) else scores[:0]  # [m, C]
    if whitening:
        variance = model.explained_variance_
        widths = np.sqrt(variance + _RIDGE * variance.mean())
        widths = np.maximum(widths, np.finfo(widths.dtype).tiny)
        scores, others = scores / widths, others / widths
    return torch.from_numpy(scores).float(), torch.from_numpy(others).float()
