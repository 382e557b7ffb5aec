"""Nearest neighbours in large catalogues, by an inverted-file index of faiss.

An exact search compares every item with every other; its time grows with the square of their
number. The index divides the items into lists of near ones by k-means and compares an item with
those of some lists. The number of lists is doubled until a sample of items has nearly all of its
exact neighbours.
"""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbole_bbqrec.errors import UserError, pip_install

EXACT_BELOW = 100_000  # items: an exact search takes a minute or two on two cores
RECALL = 0.97  # share of the exact neighbours of the sample that the search must find
_SAMPLE = 500  # items whose neighbours are searched exactly
_TRAINED_ON = 40  # items a list that k-means reads
_FIRST_PROBES = 8  # lists searched at first
_BLOCK = 16_384  # items of a search


def use_index(search: str, n_items: int) -> bool:
    """Return True if neighbours are searched by the index.

    Args:
        search: the option ``neighbour_search``. ``auto`` takes the index from 100,000 items on,
            where faiss is installed.
        n_items: size of the catalogue.

    Raises:
        UserError: ``approximate`` without faiss.
    """
    if search == "exact" or (search == "auto" and n_items < EXACT_BELOW):
        return False
    try:
        import faiss  # noqa: F401
    except ImportError as error:
        install = pip_install("ann")
        if search == "auto":
            logging.getLogger().warning(
                f"Neighbours of {n_items:,} items are searched exactly, in a time that grows with "
                f"the square of their number; an approximate search needs faiss ({install})."
            )
            return False
        raise UserError(
            f"Option `neighbour_search` is approximate, which needs faiss; install it ({install}) "
            "or give `neighbour_search: exact`."
        ) from error
    return True


def candidates(unit: Tensor, count: int, neighbours: int) -> Tensor:
    """Return items with large cosines for every item, int64 [n_items, count].

    The first column may be the item itself, and places without a candidate hold the item itself.

    Args:
        unit: float32 [n_items, F], rows of length 1 or 0.
        count: candidates of an item.
        neighbours: how many of the nearest the recall is measured on.
    """
    vectors = np.ascontiguousarray(unit.numpy())
    index = _index(vectors)
    generator = torch.Generator().manual_seed(0)
    sample = torch.randperm(len(unit), generator=generator)[:_SAMPLE]
    exact = (unit[sample] @ unit.t()).topk(min(neighbours + 1, len(unit)), 1)  # with itself
    index.nprobe = min(_FIRST_PROBES, index.nlist)
    while True:
        found = torch.from_numpy(index.search(vectors[sample.numpy()], count)[1])
        recall = _recall(exact.values, unit, sample, found)
        if recall >= RECALL or index.nprobe == index.nlist:
            break
        index.nprobe = min(2 * index.nprobe, index.nlist)
    logging.getLogger().info(
        f"neighbours of {len(unit):,} items: {index.nprobe} of {index.nlist} lists searched, "
        f"{recall:.1%} of the exact neighbours of {len(sample)} items found"
    )
    # In blocks, because faiss notes the lists of all rows that it is given.
    found = torch.from_numpy(
        np.concatenate([index.search(rows, count)[1] for rows in _blocks(vectors)])
    )
    return torch.where(found < 0, torch.arange(len(unit)).unsqueeze(1), found)


def _blocks(vectors: np.ndarray) -> list[np.ndarray]:
    return [vectors[start : start + _BLOCK] for start in range(0, len(vectors), _BLOCK)]


def _index(vectors: np.ndarray) -> Any:
    """Train and fill an inverted file of about 4 sqrt(n) lists."""
    import faiss

    lists = max(1, min(round(4 * math.sqrt(len(vectors))), len(vectors) // _TRAINED_ON))
    coarse = faiss.IndexFlatIP(vectors.shape[1])
    index = faiss.IndexIVFFlat(coarse, vectors.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.max_points_per_centroid = _TRAINED_ON
    index.cp.min_points_per_centroid = 1
    index.train(vectors)
    index.add(vectors)
    return index


def _recall(exact: Tensor, unit: Tensor, sample: Tensor, found: Tensor) -> float:
    """Return the share of exact cosines [S, K] that the found items [S, C] reach.

    Cosines are compared and not items, because equally near items are equally good.
    """
    own = sample.unsqueeze(1)
    cosines = (unit[sample].unsqueeze(1) * unit[torch.where(found < 0, own, found)]).sum(2)
    reached = cosines.masked_fill(found < 0, -1).topk(exact.shape[1], 1).values
    counts = exact > 0  # others are no neighbours
    return float((reached >= exact - 1e-4)[counts].float().mean()) if counts.any() else 1.0
