"""Filters inside the beam: the allowed items, ranked as exhaustive scoring ranks them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from recbole_bbqrec.generator.inference import beam, scoring
from recbole_bbqrec.generator.inference.exact import exact_scores
from recbole_bbqrec.generator.inference.ranking import rank
from tests.support.generator import histories, small_catalogue, small_generator

HEAD = {"generation_loss": "item", "item_head": True, "repeat_logit": True}
LENGTHS = [3, 1, 5, 4, 2]


def exhaustive(
    generator: Any, catalogue: Any, items: Tensor, allowed: Tensor, excluded: Tensor
) -> Tensor:
    """Scores [B, n_items] of every item, -inf for those that are not allowed to a user."""
    rows = []
    for history, without in zip(items, excluded):
        memory = generator.encode(catalogue, history[history > 0][None])
        scores = exact_scores(generator, catalogue, memory)[0]
        scores[~allowed], scores[without] = -torch.inf, -torch.inf
        rows.append(scores)
    return torch.stack(rows)


def compare(found: tuple[Tensor, Tensor], expected: Tensor, k: int) -> None:
    """The k best of ``expected`` in its order; what is missing of k has -inf."""
    ids, scores = found[0][:, :k], found[1][:, :k]
    order = expected.argsort(dim=1, descending=True, stable=True)[:, :k]
    best = expected.gather(1, order)
    torch.testing.assert_close(scores, best.to(scores.dtype))
    there = best > -torch.inf
    assert torch.equal(ids[there], order[there])


@pytest.mark.parametrize("block", [8, 1 << 21])  # lists of unequal length, or padded ones
@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize(
    "options", [{"generation_loss": "code"}, {"generation_loss": "item"}, HEAD]
)
@torch.no_grad()
def test_a_wide_beam_equals_exhaustive_scoring_of_the_allowed_items(
    options: dict[str, Any], levels: int, block: int, monkeypatch: Any
) -> None:
    monkeypatch.setattr(beam, "_BLOCK", block)
    torch.manual_seed(levels)
    catalogue = small_catalogue(40, levels=levels)
    generator = small_generator(catalogue, **options)
    items = histories(catalogue, LENGTHS, 6)
    allowed = torch.rand(40) < 0.5
    allowed[0] = False
    excluded = torch.cat([items, torch.randint(0, 40, (len(items), 4))], dim=1)
    found = rank(
        generator, catalogue, items, 40, torch.float32, rows=2, allowed=allowed, excluded=excluded
    )
    compare(found, exhaustive(generator, catalogue, items, allowed, excluded), 39)
    nothing = torch.zeros(len(items), 1, dtype=torch.int64)
    found = rank(generator, catalogue, items, 40, torch.float32, rows=2, allowed=allowed)
    compare(found, exhaustive(generator, catalogue, items, allowed, nothing), 39)


@torch.no_grad()
def test_a_beam_finds_every_item_of_a_shelf_as_narrow_as_itself() -> None:
    torch.manual_seed(1)
    catalogue = small_catalogue(200, codes=8, duplicates=0)
    generator = small_generator(catalogue, **HEAD)
    items = histories(catalogue, LENGTHS, 6)
    scores = exhaustive(generator, catalogue, items, torch.arange(200) > 0, items * 0)
    allowed = torch.zeros(200, dtype=torch.bool)
    allowed[scores.sum(0).argsort()[1:9]] = True  # the worst ones, which no plain beam lists
    plain = rank(generator, catalogue, items, 8, torch.float32)
    assert not allowed[plain[0]].any()
    found = rank(generator, catalogue, items, 8, torch.float32, allowed=allowed)
    compare(found, scores.masked_fill(~allowed, -torch.inf), 8)
    assert allowed[found[0]].all()


@torch.no_grad()
def test_where_everything_is_allowed_nothing_changes() -> None:
    torch.manual_seed(2)
    catalogue = small_catalogue(60)
    generator = small_generator(catalogue, **HEAD)
    items = histories(catalogue, LENGTHS, 6)
    plain = rank(generator, catalogue, items, 6, torch.float32)
    every = torch.ones(60, dtype=torch.bool)
    found = rank(generator, catalogue, items, 6, torch.float32, allowed=every)
    assert torch.equal(plain[0], found[0]) and torch.equal(plain[1], found[1])


@pytest.mark.parametrize("block", [8, 1 << 21])  # lists of unequal length, or padded ones
@pytest.mark.parametrize("options", [{"generation_loss": "code"}, HEAD])
@torch.no_grad()
def test_a_beam_wider_than_the_open_nodes_lists_all_allowed_items(
    options: dict[str, Any], block: int, monkeypatch: Any
) -> None:
    """Beams hold closed nodes twice then, so that a level may have fewer nodes than the beam."""
    monkeypatch.setattr(beam, "_BLOCK", block)
    monkeypatch.setattr(scoring, "_ROOT_ROWS", 2)
    torch.manual_seed(0)  # nodes of the levels: 23, 57, 59
    catalogue = small_catalogue(60, codes=5, duplicates=0)
    generator = small_generator(catalogue, **options)
    items = histories(catalogue, LENGTHS, 6)
    for shelf in (1, 3, 9):
        allowed = torch.zeros(60, dtype=torch.bool)
        allowed[torch.randperm(59)[:shelf] + 1] = True
        excluded = torch.where(torch.arange(5)[:, None] % 2 > 0, allowed.nonzero()[:1].T, items)
        expected = exhaustive(generator, catalogue, items, allowed, excluded)
        for beams in (shelf, 34, 58):
            found = rank(
                generator, catalogue, items, beams, torch.float32, allowed=allowed,
                excluded=excluded,
            )  # fmt: skip
            compare(found, expected, beams)
