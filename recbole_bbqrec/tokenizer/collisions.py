"""Count the items that share a whole semantic ID, and make semantic IDs unique."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Distances = Callable[[Tensor], Tensor]  # items int64 [n] -> squared distances [n, M, N]
Combination = tuple[int, ...]  # the M codes of one level
BLOCK = 2048  # items; bounds the distances held at a time
MAX_PROBES = 2000  # combinations tried by distance; then any free one is taken


class Collisions(NamedTuple):
    """Number of items that share their whole tuple with another, and of their groups."""

    items: int
    groups: int


def count_collisions(codes: Tensor) -> Collisions:
    """Count in codes int64 [n_items, L, M], without row 0 ([PAD]); Table 5 reports ``items``."""
    if len(codes) <= 1:
        return Collisions(0, 0)
    counts = torch.unique(codes[1:].flatten(1), dim=0, return_counts=True)[1]
    shared = counts[counts > 1]
    return Collisions(int(shared.sum()), len(shared))


def codes_used(codes: Tensor) -> Tensor:
    """Count the distinct codes in codes int64 [n_items, L, M], without row 0: int64 [L, M].

    >>> codes_used(torch.tensor([[[9, 9]], [[0, 4]], [[1, 4]], [[2, 4]]])).tolist()
    [[3, 1]]
    """
    ordered = codes[1:].sort(0).values
    changes = (ordered[1:] != ordered[:-1]).sum(0)
    return changes + (1 if len(ordered) else 0)


def resolve_collisions(codes: Tensor, distances: Distances, fixed: Tensor | None = None) -> Tensor:
    """Return a copy of codes int64 [n_items, L, M] in which no two items share a tuple.

    Only the last level changes, and row 0 ([PAD]) stays. ``distances`` gives squared distances
    from items' last-level residuals to all last-level codes. In each group of items with one tuple:

    1. The item closest to its last-level codes keeps them (ties: the lowest item id).
    2. The others follow, closest first. Each changes one signal: of the changes to a free tuple,
       the one whose distance grows least.
    3. If all those tuples are taken, several signals change.
    4. An item stays shared only if all N^M combinations under its prefix are taken.

    Items of ``fixed`` bool [n_items] keep their codes: all others of their groups change.

    The result depends on the arguments alone.
    """
    resolved = codes.clone()
    movers = _movers(codes, distances, fixed)
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
            chosen = _change_one(
                singles[row].tolist(), current[row].tolist(), values.shape[2], used
            )
            if chosen is None:
                chosen = _change_any(values[row], order[row], used)
            if chosen is None:
                everything = cursors.setdefault(
                    prefixes[item], _all_combinations(values.shape[1], values.shape[2])
                )
                chosen = next(combination for combination in everything if combination not in used)
            used.add(chosen)
            resolved[item, -1] = torch.tensor(chosen, device=codes.device)
    return resolved


def _movers(codes: Tensor, distances: Distances, fixed: Tensor | None = None) -> list[int]:
    """List the items that must change, group by group, closest to their own codes first."""
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
    moves = torch.ones_like(items) if fixed is None else 1 - fixed[items].long()
    columns = group[items - 1], moves, torch.cat(error), items
    ranked = sorted(zip(*(column.tolist() for column in columns)))
    pairs = zip(ranked, ranked[1:])
    return [item for (g, *_), (h, mover, _, item) in pairs if g == h and mover]


def _prefix_numbers(codes: Tensor) -> list[int]:
    """Number each item's codes of all levels but the last; -1 for [PAD]."""
    n_items, levels = codes.shape[:2]
    if levels == 1:
        return [-1] + [0] * (n_items - 1)
    numbers = torch.unique(codes[1:, :-1].flatten(1), dim=0, return_inverse=True)[1]
    return [-1, *numbers.tolist()]


def _taken(codes: Tensor, prefixes: Sequence[int], chosen: set[int]) -> dict[int, set[Combination]]:
    """Last-level combinations in use under each of the ``chosen`` prefixes."""
    taken: dict[int, set[Combination]] = {prefix: set() for prefix in chosen}
    for prefix, combination in zip(prefixes, codes[:, -1].tolist()):
        if prefix in taken:
            taken[prefix].add(tuple(combination))
    return taken


def _change_one(
    singles: Sequence[int], current: Sequence[int], n_codes: int, used: set[Combination]
) -> Combination | None:
    """Return the first free combination among the changes signal * N + code, or None."""
    for change in singles:
        signal, code = divmod(change, n_codes)
        combination = (*current[:signal], code, *current[signal + 1 :])
        if combination not in used:
            return combination
    return None


def _change_any(values: Tensor, order: Tensor, used: set[Combination]) -> Combination | None:
    """Return the free combination of least total distance, or None after MAX_PROBES tries.

    values, order [M, N]. Best-first search: combinations of ranks leave the heap by ascending sum.
    Raising one rank at a time, from the last raised signal on, reaches each exactly once.
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
    """Iterate over all combinations of M codes; the last signal changes fastest."""
    return itertools.product(range(n_codes), repeat=n_signals)
