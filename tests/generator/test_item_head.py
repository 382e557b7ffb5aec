"""The item head against its definition: loops over items, in float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from scipy import sparse
from torch import Tensor

from recbole_bbqrec.generator.head import head_loss, parts
from recbole_bbqrec.generator.head.head_loss import root_loss
from recbole_bbqrec.generator.head.item_scores import ItemScores
from recbole_bbqrec.generator.inference import beam
from recbole_bbqrec.generator.inference.beam import beam_search
from recbole_bbqrec.generator.inference.exact import exact_scores
from recbole_bbqrec.generator.inference.ranking import rank
from recbole_bbqrec.generator.items.catalogue import Catalogue
from recbole_bbqrec.generator.items.neighbour_bonus import Neighbours
from recbole_bbqrec.generator.network.seq2seq import Generator
from tests.support.generator import (
    headed_score,
    histories,
    item_score,
    small_catalogue,
    small_generator,
)

N_ITEMS = 30
SHAPES = [(3, 1, 3), (3, 2, 3), (1, 2, 6), (2, 3, 2)]  # levels, signals, codes
OPTIONS = {
    "generation_loss": "item", "item_embedding": True, "item_head": True, "repeat_logit": True,
    "n_items": N_ITEMS,
}  # fmt: skip


def item_keys(generator: Generator, catalogue: Catalogue) -> Tensor:
    return generator.item_head.keys(catalogue, generator.encoder.items)


def build(levels: int, signals: int, codes: int, **options) -> tuple[Catalogue, Generator]:
    torch.manual_seed(levels + signals)
    width = options.get("feature_dim", 0)
    catalogue = small_catalogue(N_ITEMS, levels, signals, codes, feature_dim=width)
    return catalogue, small_generator(catalogue, **{**OPTIONS, **options})


@pytest.mark.parametrize("options", [{}, {"feature_dim": 4}, {"history_tokens": "item"}])
@pytest.mark.parametrize("in_parts", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_loss_equals_its_definition(shape, in_parts: bool, options: dict, monkeypatch) -> None:
    if in_parts:
        monkeypatch.setattr(head_loss, "_SCORES", 1)
        monkeypatch.setattr(parts, "KEYS_AT_ONCE", 1)
    catalogue, generator = build(*shape, **options)
    items = torch.tensor([[9, 3, 28, 3], [17, 5, 0, 0]])  # one item occurs twice
    targets = torch.tensor([[0, 3, 28, 9], [0, 17, 0, 0]])
    value, terms = generator.loss(catalogue, items, targets)
    wanted = [
        headed_score(generator, catalogue, items[b, : t + 1].tolist(), int(targets[b, t]))
        for b, t in targets.nonzero().tolist()
    ]
    assert float(value) == pytest.approx(-sum(wanted) / len(wanted), abs=1e-10)
    assert float(sum(terms.values())) == pytest.approx(float(value), abs=1e-12)


def root_loss_by_autograd(logits: Tensor, scores: ItemScores, nodes: Tensor) -> Tensor:
    trie = scores.trie
    every = scores.states @ scores.keys.t()  # [n, I]
    row, column = (scores.seen >= 0).nonzero().unbind(1)
    where = row, scores.seen[row, column]
    every = every.index_put(where, scores.repeat[row, column], accumulate=True)
    pointer = trie.item_ptr(0).tolist()
    masses = [every[:, i:j].logsumexp(1) for i, j in zip(pointer, pointer[1:])]
    total = torch.stack(masses, 1) + logits[:, trie.root_columns].sum(-1)  # [n, n_0]
    return torch.nn.functional.cross_entropy(total, nodes, reduction="sum")


@pytest.mark.parametrize("held", [1, 1 << 21])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_first_level_and_its_gradients(held: int, scale: float, monkeypatch) -> None:
    """Against autograd through the definition, in one part and in many."""
    monkeypatch.setattr(head_loss, "_SCORES", held)
    torch.manual_seed(0)
    trie = small_catalogue(60, 2, 2, 3).trie
    n, d = 40, 5

    def random(*shape: int) -> Tensor:
        return (torch.randn(*shape, dtype=torch.float64) * scale**0.5).requires_grad_()

    inputs = random(n, 6), random(59, d), random(n, d), random(20)
    nodes = torch.randint(0, len(trie.codes[0]), (n,))
    items, last = torch.randint(1, 60, (n, 4)), torch.randint(0, 4, (n,))
    scores = ItemScores.of(trie, *inputs[1:], items, last)
    values = [function(inputs[0], scores, nodes) for function in (root_loss, root_loss_by_autograd)]
    torch.testing.assert_close(values[0], values[1])
    got, wanted = (torch.autograd.grad(v, inputs, retain_graph=True) for v in values)
    for one, other in zip(got, wanted):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def test_scores_far_apart_stay_finite() -> None:
    """A target that float32 cannot tell from impossible has a large, finite loss and gradient."""
    trie = small_catalogue(20, 1, 1, 19, duplicates=0).trie
    keys = torch.zeros(19, 1).index_fill_(0, torch.tensor([0]), 500.0).requires_grad_()
    logits = torch.zeros(1, 19, requires_grad=True)
    seen = torch.tensor([[3]])
    scores = ItemScores.of(trie, keys, torch.ones(1, 1), torch.zeros(6), seen, torch.tensor([0]))
    node = trie.item_nodes[trie.leaf_items[5], 0]
    value = root_loss(logits, scores, node[None])
    assert 80 < float(value.detach()) < 1000
    for gradient in torch.autograd.grad(value, (keys, logits)):
        assert bool(gradient.isfinite().all())


def test_bonuses_beyond_the_range_of_exp_keep_their_order() -> None:
    """exp(-88) is zero in float32: nodes so far below the best still have their own scores."""
    catalogue, generator = build(2, 1, 29)
    catalogue = Catalogue.build(catalogue.codes, catalogue.vectors, 29)
    wide, history = catalogue.trie, torch.tensor([[4, 7]])
    rows = torch.zeros(N_ITEMS, N_ITEMS)
    rows[7, 1:] = 10.0 * torch.randperm(N_ITEMS - 1)
    near = Neighbours.of_matrix(sparse.csr_matrix(rows.numpy()), 0.5)
    exact = replace(catalogue, neighbours=near)
    single = replace(exact, vectors=catalogue.vectors.float())
    wanted = beam_search(generator, exact, generator.encode(exact, history), N_ITEMS - 1)
    generator.float()
    ids, scores = beam_search(generator, single, generator.encode(single, history), N_ITEMS - 1)
    assert float(wanted[1].min()) < -200 and len(wide.leaf_items) == N_ITEMS - 1
    assert torch.equal(ids, wanted[0])
    torch.testing.assert_close(scores.double(), wanted[1], rtol=1e-5, atol=1e-3)


@torch.no_grad()
def test_masses_of_scores_far_apart_are_those_of_each_node() -> None:
    trie = small_catalogue(40, 2, 1, 6, duplicates=0).trie
    n = len(trie.leaf_items)
    keys = torch.randn(n, 3) * torch.linspace(0, 200, n).unsqueeze(1)
    states = torch.tensor([[1.0, 1.0, 1.0], [1e-3, 0.0, 0.0]])  # one history far, one near
    none = torch.full((2, 1), -1)
    scores = ItemScores(trie, keys, states, none, torch.zeros(2, 1))
    every = keys.double() @ states.double().t()  # [I, 2]
    pointer = trie.item_ptr(0).tolist()
    wanted = torch.stack([every[a:b].logsumexp(0) for a, b in zip(pointer, pointer[1:])])
    assert float((every.amax(0) - every.amin(0))[0]) > 200
    torch.testing.assert_close(scores.root_masses().double(), wanted, rtol=1e-5, atol=1e-4)


def test_gradients_do_not_depend_on_the_parts(monkeypatch) -> None:
    catalogue, generator = build(3, 2, 3)
    items = torch.randint(1, N_ITEMS, (40, 3))
    targets = torch.randint(1, N_ITEMS, (40, 3))

    def gradients() -> list[Tensor]:
        generator.zero_grad()
        generator.loss(catalogue, items, targets)[0].backward()
        return [p.grad.clone() for p in generator.parameters() if p.grad is not None]

    whole = gradients()
    monkeypatch.setattr(head_loss, "_SCORES", 1)
    monkeypatch.setattr(parts, "KEYS_AT_ONCE", 40)
    for one, other in zip(whole, gradients(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("padded", "block"), [(1 << 16, 1 << 21), (-(1 << 40), 1 << 21), (-(1 << 40), 1)]
)
@pytest.mark.parametrize("options", [{}, {"item_embedding": False}, {"repeat_logit": False}])
@pytest.mark.parametrize("shape", SHAPES)
def test_exact_scores_and_a_beam_of_all_nodes_agree(
    shape, options: dict, padded: int, block: int, monkeypatch
) -> None:
    """Children padded or listed, all users at once or one by one."""
    monkeypatch.setattr(beam, "_PADDED", padded)
    monkeypatch.setattr(beam, "_BLOCK", block)
    catalogue, generator = build(*shape, **options)
    items = histories(catalogue, [4, 2, 1], 4)
    with torch.no_grad():
        memory = generator.encode(catalogue, items)
        scores = exact_scores(generator, catalogue, memory)
        ids, found = beam_search(generator, catalogue, memory, N_ITEMS - 1)
    torch.testing.assert_close(scores[:, 1:].exp().sum(1), torch.ones(3, dtype=torch.float64))
    for row, length in enumerate((4, 2, 1)):
        history = items[row, :length].tolist()
        for item in (1, 7, 28, history[0]):
            wanted = headed_score(generator, catalogue, history, item)
            assert float(scores[row, item]) == pytest.approx(wanted, abs=1e-10)
    torch.testing.assert_close(found, scores.gather(1, ids))
    order = torch.argsort(scores[:, 1:], dim=1, descending=True, stable=True) + 1
    assert torch.equal(ids, order)


@torch.no_grad()
def test_without_a_decoder_it_is_a_softmax_over_items() -> None:
    """The levels multiply to the softmax of the items' scores if the codes say nothing."""
    catalogue = small_catalogue(N_ITEMS, 3, 2, 3, duplicates=0)
    generator = small_generator(catalogue, **OPTIONS)
    generator.decoder.head.weight.zero_()
    generator.decoder.head.bias.zero_()
    history = [5, 6, 11]
    memory = generator.encode(catalogue, torch.tensor([history]))
    got = exact_scores(generator, catalogue, memory)[0, 1:]
    shared = catalogue.trie.leaf_ptr.diff()[catalogue.trie.item_nodes[1:, -1]]
    every = [item_score(generator, catalogue, history, i) for i in range(1, N_ITEMS)]
    wanted = torch.tensor(every, dtype=torch.float64).log_softmax(0)
    alone = shared == 1
    assert int(alone.sum()) > 20
    torch.testing.assert_close(got[alone], wanted[alone])


@torch.no_grad()
def test_items_outside_the_trie_are_not_scored() -> None:
    """Neither in the masses nor as items of the history."""
    whole = small_catalogue(N_ITEMS, 3, 2, 3)
    kept = torch.arange(1, N_ITEMS)[torch.arange(1, N_ITEMS) % 5 != 0]
    catalogue = Catalogue.build(whole.codes, whole.vectors, 3, kept)
    generator = small_generator(catalogue, **OPTIONS)
    memory = generator.encode(catalogue, torch.tensor([[5, 6, 10, 7]]))
    scores = exact_scores(generator, catalogue, memory)[0]
    assert bool(torch.isinf(scores[::5]).all())
    assert float(scores[kept].exp().sum()) == pytest.approx(1.0)
    ids, found = beam_search(generator, catalogue, memory, len(kept))
    torch.testing.assert_close(found[0], scores[ids[0]])


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"generation_loss": "code"}, "item_head"),
        ({"vector_dim": 0, "similarity": False}, "vector_dim"),
        ({"item_head": False}, "repeat_logit"),
    ],
)
def test_what_an_item_head_needs(options: dict, field: str) -> None:
    catalogue = small_catalogue(N_ITEMS, 3, 2, 3)
    with pytest.raises(ValueError, match=rf"GeneratorSettings\.{field} "):
        small_generator(catalogue, **{**OPTIONS, **options})


def test_without_an_item_head_there_are_no_keys() -> None:
    catalogue = small_catalogue(N_ITEMS, 3, 2, 3)
    with pytest.raises(ValueError, match="item_head"):
        item_keys(small_generator(catalogue, generation_loss="item"), catalogue)


def test_a_catalogue_without_content_is_refused() -> None:
    catalogue = small_catalogue(N_ITEMS, 3, 2, 3)
    generator = small_generator(catalogue, **OPTIONS, similarity=False)
    bare = Catalogue.build(catalogue.codes, None, 3)
    with pytest.raises(ValueError, match="item vectors or features"):
        item_keys(generator, bare)


@pytest.mark.slow
def test_the_logits_of_repeats_are_learned() -> None:
    """Users go back and forth between two items: the last but one returns, the last does not."""
    torch.manual_seed(0)
    catalogue = small_catalogue(N_ITEMS, 3, 2, 3, duplicates=0)
    generator = small_generator(catalogue, **OPTIONS).train()
    logits = generator.item_head.repeat.logits
    with torch.no_grad():
        logits.zero_()
    optimizer = torch.optim.Adam(generator.parameters(), lr=0.02)
    for _ in range(40):
        first, second = torch.stack([torch.randperm(N_ITEMS - 1)[:2] + 1 for _ in range(32)]).t()
        items = torch.stack([first, second, first, second], dim=1)  # [32, 4]
        targets = torch.stack([second * 0, first, second, first], dim=1)
        optimizer.zero_grad()
        generator.loss(catalogue, items, targets)[0].backward()
        optimizer.step()
    last, before = logits[:2].tolist()
    assert before > 0.1 and last < -0.1


def test_ranking_leaves_nothing_behind_that_training_cannot_use() -> None:
    catalogue, generator = build(3, 2, 3)
    items, targets = torch.randint(1, N_ITEMS, (2, 4, 3))
    rank(generator, catalogue, items, 5, torch.float32)
    generator.train()
    generator.loss(catalogue, items, targets)[0].backward()
    assert all(bool(p.grad.isfinite().all()) for p in generator.parameters() if p.grad is not None)
