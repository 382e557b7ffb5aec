"""Bonus of a history's neighbours in the item head, against loops over items."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from scipy import sparse
from torch import Tensor

from recbole_bbqrec.generator.inference import beam
from recbole_bbqrec.generator.inference.beam import beam_search
from recbole_bbqrec.generator.inference.exact import exact_scores
from recbole_bbqrec.generator.inference.ranking import rank
from recbole_bbqrec.generator.items import neighbour_bonus
from recbole_bbqrec.generator.items.catalogue import Catalogue
from recbole_bbqrec.generator.items.neighbour_bonus import Neighbours
from tests.support.generator import headed_score, histories, small_catalogue, small_generator

N_ITEMS = 30
OPTIONS = {
    "generation_loss": "item", "item_embedding": True, "item_head": True, "repeat_logit": True,
    "n_items": N_ITEMS,
}  # fmt: skip


def near_values() -> Tensor:
    """value(j, i) at row j and column i; most are 0, items 28 and 29 have none."""
    values = torch.rand(N_ITEMS, N_ITEMS) * 2 * (torch.rand(N_ITEMS, N_ITEMS) < 0.3)
    values[0], values[:, 0], values[28:], values[:, 28:] = 0, 0, 0, 0
    return values


def built(values: Tensor) -> Neighbours:
    """Build the bonus with a decay of 0.5."""
    return Neighbours.of_matrix(sparse.csr_matrix(values.numpy()), 0.5)


def slow_bonus(values: Tensor, history: list[int], item: int) -> float:
    ago = enumerate(reversed(history))
    return sum(0.5**steps * float(values[chosen, item]) for steps, chosen in ago)


@pytest.mark.parametrize("cells", [0, 1 << 21])
@pytest.mark.parametrize("left_out", [0, 4])
def test_bonus_of_a_history(left_out: int, cells: int, monkeypatch) -> None:
    """Every item of the trie, with histories of repeated items and items outside the trie."""
    monkeypatch.setattr(neighbour_bonus, "_CELLS", cells)  # as a list, and as a table
    torch.manual_seed(2)
    values = near_values()
    whole = small_catalogue(N_ITEMS, 3, 2, 3)
    kept = torch.arange(1 + left_out, N_ITEMS)
    trie = Catalogue.build(whole.codes, whole.vectors, 3, kept).trie
    rows = [[5, 9, 5], [27, 2], [3]]
    padded = torch.tensor([row + [0] * (3 - len(row)) for row in rows])
    lengths = torch.tensor([3, 2, 1])
    bonus = built(values).placed(trie.item_places).bonus(N_ITEMS, padded, lengths, torch.float64)
    expected = torch.tensor(
        [[slow_bonus(values, row, item) for row in rows] for item in trie.leaf_items.tolist()],
        dtype=torch.float64,
    )  # [I, n]
    start = torch.randn(len(kept), 3, dtype=torch.float64)
    torch.testing.assert_close(bonus.add_to(start.clone()), start + expected, rtol=0, atol=1e-6)
    row, place = torch.cartesian_prod(torch.arange(3), torch.arange(len(kept))).t()
    got = bonus.at(row, place, len(kept))
    torch.testing.assert_close(got.view(3, -1).t(), expected, rtol=0, atol=1e-6)
    order = torch.tensor([2, 0, 2])
    part = bonus.take(order).add_to(torch.zeros(len(kept), 3, dtype=torch.float64))
    torch.testing.assert_close(part, expected[:, order], rtol=0, atol=1e-6)
    part = bonus.take(slice(1, 3)).add_to(torch.zeros(len(kept), 2, dtype=torch.float64))
    torch.testing.assert_close(part, expected[:, 1:], rtol=0, atol=1e-6)


def test_items_without_neighbours_give_no_bonus() -> None:
    trie = small_catalogue(N_ITEMS, 3, 2, 3).trie
    items, lengths = torch.tensor([[28, 29]]), torch.tensor([2])
    bonus = (
        built(near_values()).placed(trie.item_places).bonus(N_ITEMS, items, lengths, torch.float32)
    )
    assert not bonus.add_to(torch.zeros(N_ITEMS - 1, 1)).any()
    assert bonus.at(torch.tensor([0, 0]), torch.tensor([3, 9]), N_ITEMS - 1).tolist() == [0, 0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("padded", "block"), [(1 << 16, 1 << 21), (-(1 << 40), 1 << 21), (-(1 << 40), 1)]
)
@pytest.mark.parametrize("shape", [(3, 1, 3), (3, 2, 3), (1, 2, 6), (2, 3, 2)])
@torch.no_grad()
def test_beam_and_exact_scores_hold_the_bonus(shape, padded: int, block: int, monkeypatch) -> None:
    """Children padded or listed, all users at once or one by one; weights in float64."""
    monkeypatch.setattr(beam, "_PADDED", padded)
    monkeypatch.setattr(beam, "_BLOCK", block)
    torch.manual_seed(3)
    values = near_values()
    bare = small_catalogue(N_ITEMS, *shape)
    catalogue = replace(bare, neighbours=built(values))
    generator = small_generator(catalogue, **OPTIONS)
    items = histories(catalogue, [4, 2, 1], 4)
    memory = generator.encode(catalogue, items)
    scores = exact_scores(generator, catalogue, memory)
    ids, found = beam_search(generator, catalogue, memory, N_ITEMS - 1)
    torch.testing.assert_close(found, scores.gather(1, ids))
    order = torch.argsort(scores[:, 1:], dim=1, descending=True, stable=True) + 1
    assert torch.equal(ids, order)
    torch.testing.assert_close(scores[:, 1:].exp().sum(1), torch.ones(3, dtype=torch.float64))
    # The definition: one softmax a level over codes' logits and masses.
    without = exact_scores(generator, bare, memory)
    assert not torch.allclose(scores[:, 1:], without[:, 1:], atol=0.1)
    history = items[0].tolist()
    for item in (1, 7, 28):
        wanted = headed_score(
            generator, bare, history, item, lambda i: slow_bonus(values, history, i)
        )
        assert float(scores[0, item]) == pytest.approx(wanted, abs=1e-6)
    ranked, _ = rank(generator.float(), _float(catalogue), items, N_ITEMS - 1, torch.float32)
    assert torch.equal(ranked[:, :5], ids[:, :5])


def _float(catalogue: Catalogue) -> Catalogue:
    assert catalogue.vectors is not None
    return replace(catalogue, vectors=catalogue.vectors.float())


def test_neighbours_of_other_items_are_refused() -> None:
    whole = small_catalogue(N_ITEMS + 1, 3, 2, 3)
    with pytest.raises(ValueError, match="30 item neighbours but 31 semantic IDs"):
        Catalogue.build(whole.codes, whole.vectors, 3, neighbours=built(near_values()))


@torch.no_grad()
def test_training_does_not_see_it() -> None:
    """The next item would be chosen after its own history."""
    torch.manual_seed(4)
    bare = small_catalogue(N_ITEMS, 3, 2, 3)
    generator = small_generator(bare, **OPTIONS).train()
    items, targets = histories(bare, [4, 3], 4), torch.tensor([[0, 7, 0, 3], [0, 0, 9, 0]])
    near = replace(bare, neighbours=built(near_values()))
    losses = [generator.loss(catalogue, items, targets)[0] for catalogue in (bare, near)]
    assert torch.equal(*losses)
