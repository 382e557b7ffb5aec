"""k-means whose clusters all have the same size, by exact assignment."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

MAX_ITERATIONS = 20


def balanced_assignment(costs: np.ndarray) -> np.ndarray:
    """Assign n points to K clusters of n // K or n // K + 1 points at the least total cost.

    costs float [n, K], finite, n >= K -> int64 [n]. Each cluster offers n // K slots that must be
    filled and one that may be; dummy points, barred from the former, take the spare ones. The
    assignment of points to slots is solved exactly.
    """
    n_points, n_clusters = costs.shape
    if n_points < n_clusters:
        raise ValueError(f"{n_points} points cannot fill {n_clusters} clusters")
    base, extra = divmod(n_points, n_clusters)
    slots = np.repeat(costs, base, axis=1)  # [n, K * base]; slot s belongs to cluster s // base
    if extra:
        slots = np.concatenate([slots, costs], axis=1)  # [n, K * base + K]
        dummies = np.zeros((n_clusters - extra, slots.shape[1]))
        # More than any exchange of slots can save.
        dummies[:, : n_clusters * base] = 1.0 + (costs.max() - costs.min()) * (n_points + 1)
        slots = np.concatenate([slots, dummies])
    rows, columns = linear_sum_assignment(slots)
    chosen = columns[np.argsort(rows)][:n_points]  # [n]
    required = chosen < n_clusters * base
    return np.where(required, chosen // base, chosen - n_clusters * base).astype(np.int64)


def balanced_kmeans(points: Tensor, n_clusters: int, seed: int) -> Tensor:
    """Cluster ``points`` [n, D] into clusters whose sizes differ by at most one: int64 [n].

    Lloyd iterations with :func:`balanced_assignment`, from random points as centres, until
    nothing changes; the same points and seed give the same clusters. The cost of one iteration is
    cubic in n at worst: meant for codebooks, not for catalogues.
    """
    data = points.detach().to("cpu", torch.float64).numpy()  # [n, D]
    rng = np.random.default_rng(seed)
    centres = data[rng.choice(len(data), n_clusters, replace=False)]  # [K, D]
    labels = np.full(len(data), -1)
    for _ in range(MAX_ITERATIONS):
        costs = ((data[:, None] - centres[None]) ** 2).sum(-1)  # [n, K]
        assigned = balanced_assignment(costs)
        if (assigned == labels).all():
            break
        labels = assigned
        centres = np.stack([data[labels == k].mean(0) for k in range(n_clusters)])
    return torch.from_numpy(labels).to(points.device)
