"""Catalogue size: neighbours of features, by an exact search and by faiss's inverted file.

Features are clustered: 1 % as many centres as items, with noise of half their length around them.
An exact search compares ``--sample`` items with all others, and its time for all is that times n /
sample; the approximate search does all items. Recall is of the sample's 50 nearest, by cosine.

    python benchmarks/neighbours.py [--small] [--width 128]
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import common
import torch
import torch.nn.functional as F

from recbole_bbqrec.model.parts import neighbour_graph
from recbole_bbqrec.model.parts.approximate_search import candidates

NEIGHBOURS = 50


def features(n_items: int, width: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(max(1, n_items // 100), width, generator=generator)
    at = torch.randint(len(centres), (n_items,), generator=generator)
    return centres[at] + torch.randn(n_items, width, generator=generator).mul_(0.5)


def measure(options: argparse.Namespace, n_items: int) -> list[str]:
    common.start(options)
    unit = F.normalize(features(n_items, options.width, options.seed), dim=1)
    sample = torch.arange(0, n_items, max(1, n_items // options.sample))
    begin = time.perf_counter()
    nearest = [(unit[rows] @ unit.t()).topk(NEIGHBOURS + 1).values for rows in sample.split(64)]
    exact = (time.perf_counter() - begin) * n_items / len(sample)
    begin = time.perf_counter()
    found, memory = common.peak_growth(
        lambda: candidates(unit, neighbour_graph._CANDIDATES, NEIGHBOURS)
    )
    approximate = time.perf_counter() - begin
    cosines = (unit[sample].unsqueeze(1) * unit[found[sample]]).sum(2)
    cosines = cosines.topk(NEIGHBOURS + 1).values
    recall = (cosines >= torch.cat(nearest) - 1e-4).float().mean()
    return [
        f"{n_items:,}", f"{exact:.1f} s", f"{approximate:.1f} s", f"{exact / approximate:.1f}x",
        f"{float(recall):.3f}", f"{memory:,.0f} MiB",
    ]  # fmt: skip


def main() -> None:
    options = common.arguments(__doc__, width=128, sample=1000)
    sizes: list[Any] = [2_000, 20_000] if options.small else [10_000, 100_000, 1_000_000]
    rows = [common.in_child(measure, options, size) for size in sizes]
    header = ["items", "exact", "approximate", "ratio", "recall", "memory of the search"]
    common.heading("Neighbours of features", options)
    common.table(header, rows)


if __name__ == "__main__":
    main()
