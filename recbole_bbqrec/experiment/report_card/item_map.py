"""A map of the items: places in two dimensions, and the first code of each signal."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from recbole_bbqrec.experiment.report_card.codes import Codes

_MOST_ITEMS = 800  # drawn; more would make a page of several MB
_COMPONENTS = 30  # principal components that t-SNE starts from
_PERPLEXITY = 30.0
COLOURED = 6  # codes with a colour of their own, the most frequent ones


def item_map(model: Any, codes: Codes | None, seed: int) -> dict[str, Any] | None:
    """Place the items by t-SNE of their vectors, those that the run keeps for its codes.

    Returns ``items``, ``method``, ``places`` ([x, y] of each item drawn, in [0, 1]) and, for each
    signal, ``first_codes``: the number of the item's first code among the most frequent ones, or
    -1. None if the model has no vectors of its items.
    """
    vectors = _vectors(model)
    if codes is None or vectors is None or len(vectors) < 10:
        return None
    drawn = np.sort(np.random.default_rng(seed).permutation(len(vectors))[:_MOST_ITEMS])
    first = codes.quantized[1:, 0].numpy()[drawn]  # [n, M]
    return {
        "items": len(vectors),
        "method": "t-SNE",
        "places": _placed(vectors[drawn], seed),
        "first_codes": {
            signal: _most_frequent(first[:, index]) for index, signal in enumerate(codes.signals)
        },
    }


def _vectors(model: Any) -> np.ndarray | None:
    """Return float32 [n, V] without [PAD]: the quantized vectors, or else the items' features."""
    catalogue = getattr(model, "catalogue", None)
    for name in ("vectors", "features"):
        found = getattr(catalogue, name, None)
        if isinstance(found, torch.Tensor):
            return found[1:].detach().float().cpu().numpy()
    return None


def _placed(vectors: np.ndarray, seed: int) -> list[list[float]]:
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    n, width = vectors.shape
    reduced = PCA(min(_COMPONENTS, n, width), random_state=seed).fit_transform(vectors)
    perplexity = min(_PERPLEXITY, (n - 1) / 3)
    tsne = TSNE(2, init="pca", perplexity=perplexity, random_state=seed, n_jobs=1)
    places = tsne.fit_transform(reduced.astype(np.float32))
    low, high = places.min(0), places.max(0)
    inside = (places - low) / np.where(high > low, high - low, 1)
    return [[round(float(x), 4), round(float(y), 4)] for x, y in inside]


def _most_frequent(codes: np.ndarray) -> list[int]:
    """Number the most frequent codes 0, 1, ...; the others are -1."""
    values, counts = np.unique(codes, return_counts=True)
    order = values[np.argsort(-counts, kind="stable")][:COLOURED]
    number = {int(code): place for place, code in enumerate(order)}
    return [number.get(int(code), -1) for code in codes]
