"""Ranking by the most promising first-level nodes against ranking by the scores of all items."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import Tensor

from recbole_bbqrec.generator.head import item_scores
from recbole_bbqrec.generator.head.item_scores import ItemScores, masses_of_roots
from recbole_bbqrec.generator.inference import beam, compiled_weights, shortlist
from recbole_bbqrec.generator.inference.beam import beam_search
from recbole_bbqrec.generator.inference.shortlist import node_groups, root_top
from recbole_bbqrec.generator.items import neighbour_bonus
from recbole_bbqrec.generator.items.catalogue import Catalogue
from recbole_bbqrec.generator.items.neighbour_bonus import Neighbours
from recbole_bbqrec.generator.network.seq2seq import Generator
from tests.support.generator import small_generator

N_ITEMS, CODES, WIDTH = 401, 8, 6
HEAD = {
    "generation_loss": "item", "item_embedding": False, "item_head": True, "repeat_logit": True,
    "n_items": N_ITEMS, "feature_dim": WIDTH, "history_tokens": "item", "max_history": 6,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _any_list_serves(monkeypatch):
    """Make lists of a few hundred items, from which a list saves nothing."""
    monkeypatch.setattr(shortlist, "_LEAST_SAVING", 1)


def catalogue(noise: float) -> Catalogue:
    """Items whose features are a centre of their first-level token, and noise."""
    torch.manual_seed(5)
    codes = torch.randint(0, CODES, (N_ITEMS, 2, 2))
    codes[0] = 0
    centres = torch.randn(CODES, CODES, WIDTH, dtype=torch.float64)
    features = centres[codes[:, 0, 0], codes[:, 0, 1]]
    features = features + noise * torch.randn(N_ITEMS, WIDTH, dtype=torch.float64)
    return Catalogue.build(codes, features, CODES, features=features)


def scores_of(trie: Any, bonus: bool, n: int = 5) -> ItemScores:
    torch.manual_seed(6)
    states, keys = (torch.randn(k, WIDTH, dtype=torch.float64) for k in (n, N_ITEMS - 1))
    items, repeat = torch.randint(1, N_ITEMS, (n, 4)), torch.randn(6, dtype=torch.float64)
    scores = ItemScores.of(trie, keys, states, repeat, items, torch.full((n,), 3))
    if not bonus:
        return scores
    rows = np.random.default_rng(0).random((N_ITEMS, N_ITEMS)) * 4
    near = Neighbours.of_matrix(sparse.csr_matrix(rows * (rows > 3.9)), 0.5)
    lengths = torch.full((n,), 4)
    near = near.placed(trie.item_places)
    return replace(scores, bonus=near.bonus(N_ITEMS, items, lengths, torch.float64))


@pytest.mark.parametrize("bonus", [None, "table", "sparse"])
@pytest.mark.parametrize("shared", [1, 2])
def test_all_groups_made_exact_give_the_scores_of_all_items(
    bonus: str | None, shared: int, monkeypatch
) -> None:
    monkeypatch.setattr(shortlist, "_USERS", 2)  # more than one block
    if bonus == "sparse":
        monkeypatch.setattr(neighbour_bonus, "_CELLS", 0)
    trie = catalogue(1.0).trie
    scores = scores_of(trie, bonus is not None)
    logits = torch.randn(5, 2 * CODES, dtype=torch.float64)
    monkeypatch.setattr(shortlist, "GROUPS_PER_BEAM", 1)
    if shared == 1:
        monkeypatch.setattr(shortlist, "_LEAST_ITEMS", 20)  # 8 first codes, 64 nodes, 400 items
    groups = node_groups(trie, scores.keys, "shortlist", num_beams=1)
    assert groups is not None and groups.shared.shape[1] == shared
    assert len(groups.keys) == (8 if shared == 1 else len(trie.codes[0]))
    every = groups._replace(n_exact=len(groups.keys))
    wanted = beam._root_top_of_items(scores, logits, 10, None)
    found = root_top(scores, every, logits, 10)
    for one, other in zip(*(sort(*pair) for pair in (found, wanted))):
        torch.testing.assert_close(one, other)


def sort(values: Tensor, nodes: Tensor) -> tuple[Tensor, Tensor]:
    values, order = values.sort(1, descending=True)
    return values, nodes.gather(1, order)


@pytest.mark.parametrize("bonus", [False, True])
def test_masses_of_many_nodes_at_once(bonus: bool) -> None:
    trie = catalogue(1.0).trie
    scores = scores_of(trie, bonus)
    torch.manual_seed(7)
    chosen = torch.rand(5, len(trie.codes[0])) < torch.tensor([0.5, 0.1, 0, 1, 0.3])[:, None]
    rows, nodes = chosen.nonzero().unbind(1)
    found = masses_of_roots(scores, nodes, chosen.sum(1))
    torch.testing.assert_close(found, scores.masses(0, rows, nodes))


@torch.no_grad()
def test_items_listed_in_parts_have_the_same_bits(monkeypatch) -> None:
    scores = scores_of(catalogue(1.0).trie, bonus=True)
    rows, places = torch.arange(5).repeat_interleave(80), torch.arange(400)
    wanted = scores.listed(rows, places)
    monkeypatch.setattr(item_scores, "_AT_ONCE", 64)
    assert torch.equal(scores.listed(rows, places), wanted)


@torch.no_grad()
def test_estimates_are_masses_where_a_node_is_one_point() -> None:
    items = catalogue(0.0)
    generator = small_generator(items, **HEAD)
    keys = generator.item_head.keys(items, generator.encoder.items)
    groups = node_groups(items.trie, keys, "shortlist", num_beams=2)
    assert groups is not None
    state = torch.randn(3, keys.shape[1], dtype=torch.float64)
    known = torch.cat([state, state.pow(2).sum(1, keepdim=True), torch.ones(3, 1)], 1).double()
    none = torch.full((3, 1), -1)
    scores = ItemScores(items.trie, keys, state, none, torch.zeros(3, 1, dtype=torch.float64))
    torch.testing.assert_close(groups.keys @ known.t(), scores.root_masses())


def top(items: Catalogue, generator: Generator, history: Tensor, ranking: str) -> Tensor:
    generator.config = replace(generator.config, item_head_ranking=ranking)
    compiled_weights.forget(generator)
    return beam_search(generator, items, generator.encode(items, history), 5)[0]


@torch.no_grad()
def test_a_beam_finds_what_it_finds_with_all_items(monkeypatch) -> None:
    monkeypatch.setattr(shortlist, "GROUPS_PER_BEAM", 3)  # 15 of 64
    items = catalogue(0.1)
    history = torch.randint(1, N_ITEMS, (20, 4))
    generator = small_generator(items, **HEAD)
    assert torch.equal(*(top(items, generator, history, name) for name in ("shortlist", "exact")))
    # A neighbour that its group alone would not bring onto the list
    worst = int(beam_search(generator, items, generator.encode(items, history[:1]), 400)[0][0, -1])
    rows = sparse.csr_matrix(([1000.0], ([int(history[0, -1])], [worst])), (N_ITEMS, N_ITEMS))
    items = replace(items, neighbours=Neighbours.of_matrix(rows, 0.5))
    assert int(top(items, generator, history[:1], "shortlist")[0, 0]) == worst


def test_all_items_are_scored_where_little_is_saved(monkeypatch) -> None:
    trie = catalogue(1.0).trie
    keys = torch.randn(N_ITEMS - 1, WIDTH)
    assert node_groups(trie, keys, "shortlist", 1) is not None
    assert node_groups(trie, keys, "exact", 1) is None
    assert node_groups(trie, keys, "shortlist", 100) is None  # all groups would be listed
    monkeypatch.setattr(shortlist, "_LEAST_SAVING", 100)
    assert node_groups(trie, keys, "shortlist", 1) is None
