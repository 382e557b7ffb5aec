"""Counting collisions and separating items that collide."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from recbole_bbqrec.tokenizer import collisions
from recbole_bbqrec.tokenizer.collisions import count_collisions, resolve_collisions


def problem(
    n: int, levels: int, signals: int, size: int, spread: float = 1.0, seed: int = 0
) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
    """Codes whose last level is nearest to random residuals; prefixes drawn from few values."""
    generator = torch.Generator().manual_seed(seed)
    residuals = spread * torch.randn(n + 1, signals, 4, generator=generator, dtype=torch.float64)
    books = torch.randn(signals, size, 4, generator=generator, dtype=torch.float64)
    table = (residuals.unsqueeze(2) - books).pow(2).sum(-1)  # [n + 1, M, N]
    codes = torch.randint(2, (n + 1, levels, signals), generator=generator)
    codes[:, -1] = table.argmin(-1)
    codes[0] = 0
    return codes, table, lambda items: table[items]


def tuples(codes: Tensor) -> list[tuple[int, ...]]:
    return [tuple(row) for row in codes[1:].flatten(1).tolist()]


@pytest.mark.parametrize("seed", range(3))
def test_count_equals_a_counter(seed: int) -> None:
    codes, _, _ = problem(60, 2, 2, 3, seed=seed)
    shared = [count for count in Counter(tuples(codes)).values() if count > 1]
    assert shared and count_collisions(codes) == (sum(shared), len(shared))


def test_pad_does_not_collide() -> None:
    codes = torch.zeros(2, 3, 2, dtype=torch.int64)
    assert count_collisions(codes) == (0, 0)
    assert count_collisions(codes[:1]) == (0, 0) and count_collisions(codes[:0]) == (0, 0)
    resolved = resolve_collisions(codes, lambda items: torch.zeros(len(items), 2, 3))
    assert torch.equal(resolved, codes)


@pytest.mark.parametrize(
    ("n", "levels", "signals", "size"),
    [(80, 2, 2, 6), (200, 3, 3, 8), (50, 1, 3, 5), (30, 2, 1, 20), (100, 1, 2, 10)],
)
def test_becomes_one_to_one_touching_only_the_last_level_of_colliding_items(
    n: int, levels: int, signals: int, size: int
) -> None:
    codes, _, distances = problem(n, levels, signals, size)
    before = count_collisions(codes)
    assert before.items > 0
    resolved = resolve_collisions(codes, distances)
    assert count_collisions(resolved).items == 0
    assert torch.equal(resolved[:, :-1], codes[:, :-1]) and torch.equal(resolved[0], codes[0])
    changed = (resolved != codes).flatten(1).any(1)
    assert int(changed.sum()) == before.items - before.groups  # one item of each group stays
    counts = Counter(tuples(codes))
    assert all(counts[tuple(codes[item].flatten().tolist())] > 1 for item in changed.nonzero())
    assert torch.equal(resolve_collisions(codes, distances), resolved)


def test_each_change_is_the_cheapest_free_one_signal_change() -> None:
    """Replays the rule by brute force, in the documented order."""
    codes, table, distances = problem(40, 2, 2, 6)
    resolved = resolve_collisions(codes, distances)
    taken = set(tuples(codes))
    groups: dict[tuple[int, ...], list[int]] = {}
    for item, key in enumerate(tuples(codes), start=1):
        groups.setdefault(key, []).append(item)
    replayed = codes.clone()
    for key in sorted(groups):
        error = {i: sum(float(table[i, m, codes[i, -1, m]]) for m in range(2)) for i in groups[key]}
        for item in sorted(groups[key], key=lambda i: (error[i], i))[1:]:
            options = []
            for signal, code in itertools.product(range(2), range(6)):
                new = codes[item].clone()
                new[-1, signal] = code
                growth = table[item, signal, code] - table[item, signal, codes[item, -1, signal]]
                if tuple(new.flatten().tolist()) not in taken:
                    options.append((float(growth), tuple(new.flatten().tolist())))
            best = min(options)[1]
            taken.add(best)
            replayed[item] = torch.tensor(best).view(2, 2)
    assert torch.equal(resolved, replayed)


def test_identical_items_are_separated() -> None:
    codes = torch.zeros(6, 2, 2, dtype=torch.int64)
    table = torch.rand(1, 2, 4, generator=torch.Generator().manual_seed(0)).expand(6, 2, 4)
    resolved = resolve_collisions(codes, lambda items: table[items])
    assert count_collisions(resolved).items == 0
    assert torch.equal(resolved[1], codes[1])  # the lowest id keeps the code


def test_several_signals_change_where_one_is_not_enough() -> None:
    """Nine items, M = 2, N = 3: the last ones must leave the cross of one-signal changes."""
    codes = torch.zeros(10, 1, 2, dtype=torch.int64)
    row = torch.tensor([[0.0, 1.0, 5.0], [0.0, 2.0, 3.0]])
    table = row.expand(10, 2, 3)
    resolved = resolve_collisions(codes, lambda items: table[items])
    order = [tuple(pair) for pair in resolved[1:, 0].tolist()]
    assert order[:5] == [(0, 0), (1, 0), (0, 1), (0, 2), (2, 0)]  # growth 0, 1, 2, 3, 5
    assert order[5:] == [(1, 1), (1, 2), (2, 1), (2, 2)]  # total 3, 4, 7, 8


def test_exhausted_prefix_leaves_the_rest_shared() -> None:
    codes, _, distances = problem(12, 1, 2, 3)
    resolved = resolve_collisions(codes, distances)
    assert len(set(tuples(resolved))) == 9
    assert count_collisions(resolved).items >= 3


def test_a_free_tuple_is_found_when_probing_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collisions, "MAX_PROBES", 2)
    codes, _, distances = problem(64, 1, 3, 4, spread=0.01)
    assert count_collisions(resolve_collisions(codes, distances)).items == 0


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    codes, _, distances = problem(200, 2, 2, 12)
    expected = resolve_collisions(codes, distances)
    monkeypatch.setattr(collisions, "BLOCK", 3)
    assert torch.equal(resolve_collisions(codes, distances), expected)


def test_thousands_of_collisions_take_seconds() -> None:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(256, (12_001, 3, 3), generator=generator)
    source = torch.randint(1, 9001, (3000,), generator=generator)
    codes[9001:] = codes[source]
    table = torch.rand(3, 256, generator=generator)
    start = time.perf_counter()
    resolved = resolve_collisions(codes, lambda items: table.expand(len(items), 3, 256))
    assert count_collisions(codes).items > 3000 and count_collisions(resolved).items == 0
    assert time.perf_counter() - start < 20


def test_fixed_items_never_move():
    torch.manual_seed(0)
    codes = torch.randint(0, 3, (40, 2, 2))
    fixed = torch.zeros(40, dtype=torch.bool)
    fixed[:20] = True
    codes[1:20] = torch.tensor([[i // 9, i % 9] for i in range(19)]).unsqueeze(2) % 3  # few collide
    codes[1:20] = resolve_collisions(codes[:20], lambda items: torch.rand(len(items), 2, 5))[1:]
    values = torch.rand(40, 2, 5)
    resolved = resolve_collisions(codes, lambda items: values[items], fixed)
    assert torch.equal(resolved[:20], codes[:20])
    assert len(torch.unique(resolved[1:].flatten(1), dim=0)) == 39
