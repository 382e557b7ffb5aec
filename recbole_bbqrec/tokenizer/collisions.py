"""Items that share their whole semantic ID: counting them and telling them apart."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Distances = Callable[[Tensor], Tensor]  # items int64 [n] -> squared distances [n, M, N]
Combination = tuple[int, ...]  # the M codes of one level
BLOCK = 2048  # items whose distances are held at once
MAX_PROBES = 2000  # tries by distance before any free combination is taken


class Collisions(NamedTuple):
    """``items`` share their whole tuple with another item; they form ``groups`` groups."""

    items: int
    groups: int


def count_collisions(codes: Tensor) -> Collisions:
    """codes int64 [n_items, L, M]; row 0 ([PAD]) does not count. Table 5 reports ``items``."""
    if len(codes) <= 1:
        return Collisions(0, 0)
    counts = torch.unique(codes[1:].flatten(1), dim=0, return_counts=True)[1]
    shared = counts[counts > 1]
    return Collisions(int(shared.sum()), len(shared))


def resolve_collisions(codes: Tensor, distances: Distances) -> Tensor:
    """Make codes int64 [n_items, L, M] (row 0 = [PAD], left alone) one-to-one; returns a copy.

    Only the last level changes. In each group of items with one tuple, the item closest to its
    last-level codes keeps it (ties: the lowest item id). Each of the others, again closest
    first, changes the one signal whose distance to its last-level residual grows least among
    the changes that lead to a free tuple; where every such tuple is taken, several signals. Items
    are left shared only where all N^M combinations under their prefix are taken. ``distances``
    gives the squared distances of items' last-level residuals to all last-level codes.
    Deterministic: depends on the arguments alone.
    """
    resolved = codes.clone()
    movers = _movers(codes, distances)
    if not movers:
        return resolved
    prefixes = _prefix_numbers(codes)
    taken = _taken(codes, prefixes, {prefixes[item] for item in movers})
    cursors: dict[int, Iterator[Combination]] = {}
    for start in range(0, len(movers), BLOCK):
        block = movers[start : start + BLOCK]
        values = distances(torch.tensor(block, device=codes.device)).cpu()  # [n, M, N]
        order = values.argsort(dim=-1, stable=True)  # [n, M, N] codes by distance
        current = codes[block, -1].cpu()  # [n, M]
        growth = values - values.gather(2, current.unsqueeze(-1))  # [n, M, N]
        singles = growth.flatten(1).argsort(dim=-1, stable=True)  # [n, M*N] changes by growth
        for row, item in enumerate(block):
            used = taken[prefixes[item]]
            if len(used) >= values.shape[2] ** values.shape[1]:
                continue
            found = _change_one(singles[row].tolist(), current[row].tolist(), values.shape[2], used)
            if found is None:
                found = _change_any(values[row], order[row], used)
            if found is None:
                everything = cursors.setdefault(
                    prefixes[item], _all_combinations(values.shape[1], values.shape[2])
                )
                found = next(combination for combination in everything if combination not in used)
            used.add(found)
            resolved[item, -1] = torch.tensor(found, device=codes.device)
    return resolved


def _movers(codes: Tensor, distances: Distances) -> list[int]:
    """Items that have to change, group by group, closest to their own codes first."""
    _, group, counts = torch.unique(
        codes[1:].flatten(1), dim=0, return_inverse=True, return_counts=True
    )
    items = (counts[group] > 1).nonzero().squeeze(-1) + 1  # ascending ids
    error = [
        distances(block).gather(2, codes[block, -1].unsqueeze(-1)).sum(dim=(1, 2))
        for block in items.split(BLOCK)
    ]
    if not len(items):
        return []
    ranked = sorted(zip(group[items - 1].tolist(), torch.cat(error).tolist(), items.tolist()))
    return [item for (g, _, _), (h, _, item) in zip(ranked, ranked[1:]) if g == h]


def _prefix_numbers(codes: Tensor) -> list[int]:
    """A number per item for the codes of all levels but the last; -1 for [PAD]."""
    n_items, levels = codes.shape[:2]
    if levels == 1:
        return [-1] + [0] * (n_items - 1)
    numbers = torch.unique(codes[1:, :-1].flatten(1), dim=0, return_inverse=True)[1]
    return [-1, *numbers.tolist()]


def _taken(codes: Tensor, prefixes: Sequence[int], wanted: set[int]) -> dict[int, set[Combination]]:
    """Last-level combinations in use under each wanted prefix."""
    taken: dict[int, set[Combination]] = {prefix: set() for prefix in wanted}
    for prefix, combination in zip(prefixes, codes[:, -1].tolist()):
        if prefix in taken:
            taken[prefix].add(tuple(combination))
    return taken


def _change_one(
    singles: Sequence[int], current: Sequence[int], n_codes: int, used: set[Combination]
) -> Combination | None:
    """The first free combination among changes signal * N + code, in the order given."""
    for change in singles:
        signal, code = divmod(change, n_codes)
        combination = (*current[:signal], code, *current[signal + 1 :])
        if combination not in used:
            return combination
    return None


def _change_any(values: Tensor, order: Tensor, used: set[Combination]) -> Combination | None:
    """The free combination with the smallest total distance, or None after MAX_PROBES tries.

    values, order [M, N]. Best-first: combinations of ranks leave the heap by ascending sum;
    raising one rank at a time, from the last raised signal on, reaches each exactly once.
    """
    ranked = values.gather(1, order).tolist()  # [M][N] ascending distances
    codes = order.tolist()
    n_signals, n_codes = values.shape
    heap = [(sum(row[0] for row in ranked), (0,) * n_signals, 0)]
    for _ in range(MAX_PROBES):
        if not heap:
            break
        total, ranks, first = heapq.heappop(heap)
        combination = tuple(codes[signal][rank] for signal, rank in enumerate(ranks))
        if combination not in used:
            return combination
        for signal in range(first, n_signals):
            rank = ranks[signal] + 1
            if rank < n_codes:
                grown = total - ranked[signal][rank - 1] + ranked[signal][rank]
                raised = (*ranks[:signal], rank, *ranks[signal + 1 :])
                heapq.heappush(heap, (grown, raised, signal))
    return None


def _all_combinations(n_signals: int, n_codes: int) -> Iterator[Combination]:
    """Every combination of M codes, the last signal running fastest."""
    return itertools.product(range(n_codes), repeat=n_signals)
