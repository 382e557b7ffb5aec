"""Selection in two steps against a sort."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from recbole_bbqrec.nn import topk as selection
from recbole_bbqrec.nn.topk import best_of_columns, best_of_rows

SHAPES = [(3, 100, 4), (2, 101, 1), (4, 64, 64), (1, 67, 16), (5, 9, 3)]


@pytest.mark.parametrize("values", ["distinct", "ties", "mostly -inf"])
@pytest.mark.parametrize("rows, n, k", SHAPES)
@pytest.mark.parametrize("small", [0, 1 << 15])
def test_the_best_of_every_row(
    rows: int, n: int, k: int, values: str, small: int, monkeypatch: Any
) -> None:
    monkeypatch.setattr(selection, "_SMALL", small)
    torch.manual_seed(rows)
    table = torch.randn(rows, n)
    if values == "ties":
        table = torch.randint(0, 3, (rows, n)).float()
    elif values == "mostly -inf":
        table[torch.rand(rows, n) < 0.97] = -torch.inf
    wanted = table.sort(dim=1, descending=True).values[:, :k]
    for best, places in (best_of_rows(table, k), best_of_columns(table.t().contiguous(), k)):
        assert torch.equal(best.sort(dim=1, descending=True).values, wanted)
        assert torch.equal(table.gather(1, places), best)
        assert all(len(set(row)) == k for row in places.tolist())


def test_two_steps_search_less() -> None:
    assert selection._group_size(128 * 12101, 12101, 50) == 15
    assert selection._group_size(128 * 100, 100, 50) == 1  # a small table
    assert selection._group_size(1 << 20, 150, 50) == 1  # groups of two would not halve it
