"""Seeded k-means that always returns the requested number of centres."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits
from torch import Tensor

# More points per centre than this hardly move the centres, but cost time in proportion.
POINTS_PER_CENTRE = 512
MAX_ITERATIONS = 50


class NotFiniteError(ValueError):
    """Points to cluster hold NaN or infinity."""


def kmeans(points: Tensor, n_clusters: int, seed: int) -> Tensor:
    """Cluster ``points`` (float [n, D], n >= 1) and return the centres, float32 [n_clusters, D].

    k-means++ seeding and Lloyd iterations (scikit-learn) on at most ``POINTS_PER_CENTRE``
    points per centre. With no more distinct points than centres, every distinct point is a
    centre and the rest are jittered copies of random points. The same points and seed give the
    same centres. Raises ValueError when there are no points, and NotFiniteError when
    they are not finite.
    """
    data = points.detach().to("cpu", torch.float32).numpy()  # [n, D]
    if data.ndim != 2 or len(data) == 0:
        raise ValueError(f"k-means needs points of shape [n >= 1, D], got {tuple(points.shape)}")
    if not np.isfinite(data).all():
        raise NotFiniteError(
            "k-means needs finite points; the encoder's output holds NaN or infinity"
        )
    rng = np.random.default_rng(seed)
    limit = POINTS_PER_CENTRE * n_clusters
    if len(data) > limit:
        data = data[np.sort(rng.choice(len(data), limit, replace=False))]
    distinct = np.unique(data, axis=0)
    if len(distinct) <= n_clusters:
        return torch.from_numpy(_fill_up(distinct, n_clusters, rng))
    model = KMeans(n_clusters, n_init=1, max_iter=MAX_ITERATIONS, random_state=seed)
    with threadpool_limits(limits=1):  # threads would add up a centre in random order
        centres = model.fit(data).cluster_centers_
    return torch.from_numpy(centres.astype(np.float32))


def _fill_up(distinct: np.ndarray, n_clusters: int, rng: np.random.Generator) -> np.ndarray:
    """Append jittered copies to ``distinct`` points [n, D]: float32 [n_clusters, D]."""
    picked = distinct[rng.integers(len(distinct), size=n_clusters - len(distinct))]
    # Far below the spread, so that a copy does not win points from an original.
    scale = 0.01 * float(distinct.std()) + 1e-4
    jittered = picked + scale * rng.standard_normal(picked.shape)
    return np.concatenate([distinct, jittered]).astype(np.float32)
