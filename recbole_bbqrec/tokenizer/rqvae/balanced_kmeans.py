"""k-means with bounds on cluster sizes (Bradley et al., 2000) and exact assignments."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

MAX_ITERATIONS = 10  # as in LETTER's code


def constrained_assignment(costs: np.ndarray, smallest: int, largest: int) -> np.ndarray:
    """Assign n points to K clusters of ``smallest`` to ``largest`` points at the least total cost.

    costs float [n, K], finite -> int64 [n]. Each cluster has ``smallest`` slots that must be
    filled and others that may be. The assignment of points to slots is solved exactly. Raises
    ValueError if no assignment has such sizes.
    """
    n_points, n_clusters = costs.shape
    if not n_clusters * smallest <= n_points <= n_clusters * largest:
        raise ValueError(
            f"{n_points} points cannot fill {n_clusters} clusters of {smallest} to {largest}"
        )
    nearest = costs.argmin(1)
    sizes = np.bincount(nearest, minlength=n_clusters)
    if smallest <= sizes.min() and sizes.max() <= largest:
        return nearest
    # Bonus of a required slot: more than any exchange of slots can cost.
    bonus = 1.0 + (costs.max() - costs.min()) * (n_points + 1)
    required = np.repeat(costs - bonus, smallest, axis=1)  # [n, K * smallest]
    optional = np.repeat(costs, largest - smallest, axis=1)  # [n, K * (largest - smallest)]
    slots = linear_sum_assignment(np.concatenate([required, optional], axis=1))[1]  # [n]
    cluster = np.repeat(np.arange(n_clusters), smallest)
    others = np.repeat(np.arange(n_clusters), largest - smallest)
    return np.concatenate([cluster, others])[slots]


def constrained_kmeans(
    points: Tensor, n_clusters: int, smallest: int, largest: int, seed: int
) -> Tensor:
    """Cluster ``points`` [n, D] into clusters of ``smallest`` (>= 1) to ``largest``: int64 [n].

    At most MAX_ITERATIONS Lloyd iterations with :func:`constrained_assignment`, starting from
    random points. The same points and seed give the same clusters. An iteration costs up to n^3:
    enough for codebooks, too much for catalogues.
    """
    data = points.detach().to("cpu", torch.float64).numpy()  # [n, D]
    rng = np.random.default_rng(seed)
    centres = data[rng.choice(len(data), n_clusters, replace=False)]  # [K, D]
    labels = np.full(len(data), -1)
    for _ in range(MAX_ITERATIONS):
        costs = ((data[:, None] - centres[None]) ** 2).sum(-1)  # [n, K]
        assigned = constrained_assignment(costs, smallest, largest)
        if (assigned == labels).all():
            break
        labels = assigned
        centres = np.stack([data[labels == k].mean(0) for k in range(n_clusters)])
    return torch.from_numpy(labels).to(points.device)
