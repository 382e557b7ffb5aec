"""Density-peak clustering of items into interests (MISSRec), in blocks of rows."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

_BLOCK_CELLS = 1 << 24  # distances in memory at a time


def dpc_knn(points: Tensor, n_clusters: int, neighbours: int, count_itself: bool = False) -> Tensor:
    """Cluster by density peaks with a k-nearest-neighbour density (Du et al., 2016).

    A point's density is exp(-mean squared distance to its k nearest others); its separation is
    the distance to the nearest denser point (to the farthest point, for the densest). The
    ``n_clusters`` points with the largest product are the centres and every point joins its
    nearest centre. Deterministic: of two equally dense points the first counts as denser.

    Args:
        points: float [n, D].
        n_clusters: K, 1 <= K <= n.
        neighbours: k, at least 1; cut to n - 1.
        count_itself: a point is the first of its own k neighbours, as in MISSRec's code.

    Returns:
        Cluster of each point, int64 [n], in 0 .. K - 1; none is empty.

    Raises:
        ValueError: a number is out of range.
    """
    n = len(points)
    if not 1 <= n_clusters <= n or neighbours < 1:
        raise ValueError(
            f"dpc_knn needs 1 <= n_clusters <= {n} and neighbours >= 1, got {n_clusters} and "
            f"{neighbours}"
        )
    density = _density(points, min(neighbours, n if count_itself else n - 1), count_itself)
    rank = torch.empty(n, dtype=torch.int64, device=points.device)  # 0 is the densest
    order = torch.sort(density, descending=True, stable=True).indices
    rank[order] = torch.arange(n, device=points.device)
    score = density * _separation(points, rank)
    centres = torch.sort(score, descending=True, stable=True).indices[:n_clusters]
    nearest = [squared.argmin(1) for _, squared in _squared_distances(points, points[centres])]
    cluster = torch.cat(nearest)
    cluster[centres] = torch.arange(n_clusters, device=points.device)  # also among duplicates
    return cluster


def _squared_distances(points: Tensor, others: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield row indices [rows] and their squared distances [rows, m] to ``others`` by block."""
    lengths = others.pow(2).sum(1)  # [m]
    size = max(1, _BLOCK_CELLS // len(others))
    for rows in torch.arange(len(points), device=points.device).split(size):
        block = points[rows]
        squared = torch.addmm(lengths, block, others.T, alpha=-2)  # [rows, m]
        yield rows, squared.add_(block.pow(2).sum(1, keepdim=True)).clamp_(min=0)


def _density(points: Tensor, neighbours: int, count_itself: bool) -> Tensor:
    """Return exp(-mean squared distance to the nearest points), float [n]."""
    if neighbours == 0:
        return torch.ones(len(points), device=points.device)
    means = []
    for rows, squared in _squared_distances(points, points):
        squared[torch.arange(len(rows)), rows] = 0 if count_itself else torch.inf
        nearest = torch.topk(squared, neighbours, dim=1, largest=False, sorted=False).values
        means.append(nearest.mean(1))
    return torch.exp(-torch.cat(means))


def _separation(points: Tensor, rank: Tensor) -> Tensor:
    """Return the distance to the nearest point of lower rank (rank 0: the farthest), float [n]."""
    parts = []
    for rows, squared in _squared_distances(points, points):
        farthest = squared.amax(1)
        squared.masked_fill_(rank >= rank[rows].unsqueeze(1), torch.inf)
        nearest = squared.amin(1)
        parts.append(torch.where(torch.isinf(nearest), farthest, nearest))
    return torch.cat(parts).sqrt()


def first_occurrences(labels: Tensor) -> Tensor:
    """Mark positions without the same label earlier in the row: labels [B, T] -> bool [B, T]."""
    same = labels.unsqueeze(2) == labels.unsqueeze(1)  # [B, T, T]
    return ~same.tril(-1).any(2)
