"""The item head against its definition: loops over items, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from generator_helpers import (
    VECTOR_DIM,
    histories,
    level_states,
    small_catalogue,
    small_generator,
)
from torch import Tensor

from recbole_bbqrec.generator import beam, losses, root_loss
from recbole_bbqrec.generator.beam import beam_search
from recbole_bbqrec.generator.catalogue import Catalogue
from recbole_bbqrec.generator.exact import exact_scores
from recbole_bbqrec.generator.node_head import NodeWeights
from recbole_bbqrec.generator.seq2seq import Generator

N_ITEMS = 30
SHAPES = [(3, 1, 3), (3, 2, 3), (1, 2, 6), (2, 3, 2)]  # levels, signals, codes
OPTIONS = {
    "generation_loss": "item", "item_embedding": True, "item_head": True, "n_items": N_ITEMS,
}  # fmt: skip


@torch.no_grad()
def slow_score(generator: Generator, catalogue: Catalogue, history: list[int], item: int) -> float:
    """Log-probability of one item: siblings found by comparing tuples, means taken one by one."""
    _, hidden = level_states(generator, catalogue, history, catalogue.codes[item])  # [L, d]
    tuples = {i: [tuple(t) for t in catalogue.codes[i].tolist()] for i in range(1, N_ITEMS)}
    size = catalogue.trie.codebook_size
    score = 0.0
    for level, state in enumerate(hidden):
        total = {}
        for token in {t[level] for t in tuples.values() if t[:level] == tuples[item][:level]}:
            below = [
                i for i, t in tuples.items() if t[: level + 1] == [*tuples[item][:level], token]
            ]
            own = torch.stack([own_weight(generator, catalogue, i) for i in below]).mean(0)
            logit = float(state @ own)
            for signal, code in enumerate(token):
                column = signal * size + code
                logit += float(state @ generator.head_weight[level][column])
                logit += float(generator.head_bias[level][column])
            total[token] = logit
        score += total[tuples[item][level]] - math.log(sum(math.exp(v) for v in total.values()))
    return score - math.log(sum(t == tuples[item] for t in tuples.values()))


def own_weight(generator: Generator, catalogue: Catalogue, item: int) -> Tensor:
    content = catalogue.vectors if catalogue.features is None else catalogue.features
    assert content is not None
    content = generator.content.weight @ content[item]
    return content if generator.items is None else content + generator.items.weight[item]


def build(levels: int, signals: int, codes: int, **options) -> tuple[Catalogue, Generator]:
    torch.manual_seed(levels + signals)
    width = options.get("feature_dim", 0)
    catalogue = small_catalogue(N_ITEMS, levels, signals, codes, feature_dim=width)
    return catalogue, small_generator(catalogue, **{**OPTIONS, **options})


@pytest.mark.parametrize("feature_dim", [0, 4])
@pytest.mark.parametrize("in_parts", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_loss_equals_its_definition(shape, in_parts: bool, feature_dim: int, monkeypatch) -> None:
    if in_parts:
        monkeypatch.setattr(root_loss, "_LOGITS", 1)
        monkeypatch.setattr(losses, "_CHILD_WEIGHTS", 1)
    catalogue, generator = build(*shape, feature_dim=feature_dim)
    items = histories(catalogue, [4, 2], 4)
    targets = torch.tensor([[0, 3, 28, 9], [0, 17, 0, 0]])
    value, terms = generator.loss(catalogue, items, targets)
    wanted = [
        slow_score(generator, catalogue, items[b, : t + 1].tolist(), int(targets[b, t]))
        for b, t in targets.nonzero().tolist()
    ]
    assert float(value) == pytest.approx(-sum(wanted) / len(wanted), abs=1e-10)
    assert float(sum(terms.values())) == pytest.approx(float(value), abs=1e-12)


def test_gradients_do_not_depend_on_the_parts(monkeypatch) -> None:
    catalogue, generator = build(3, 2, 3)
    items = torch.randint(1, N_ITEMS, (40, 3))
    targets = torch.randint(1, N_ITEMS, (40, 3))

    def gradients() -> list[Tensor]:
        generator.zero_grad()
        generator.loss(catalogue, items, targets)[0].backward()
        return [p.grad.clone() for p in generator.parameters() if p.grad is not None]

    whole = gradients()
    monkeypatch.setattr(root_loss, "_LOGITS", 1)
    monkeypatch.setattr(losses, "_CHILD_WEIGHTS", 40)
    for one, other in zip(whole, gradients(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("padded", "block"), [(1 << 16, 1 << 21), (-(1 << 40), 1 << 21), (-(1 << 40), 1)]
)
@pytest.mark.parametrize("item_embedding", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_exact_scores_and_a_beam_of_all_nodes_agree(
    shape, item_embedding: bool, padded: int, block: int, monkeypatch
) -> None:
    """Children padded or listed, all users at once or one by one."""
    monkeypatch.setattr(beam, "_PADDED", padded)
    monkeypatch.setattr(beam, "_BLOCK", block)
    catalogue, generator = build(*shape, item_embedding=item_embedding)
    items = histories(catalogue, [4, 2, 1], 4)
    with torch.no_grad():
        memory = generator.encode(catalogue, items)
        scores = exact_scores(generator, catalogue, memory)
        ids, found = beam_search(generator, catalogue, memory, N_ITEMS - 1)
    torch.testing.assert_close(scores[:, 1:].exp().sum(1), torch.ones(3, dtype=torch.float64))
    for row, length in enumerate((4, 2, 1)):
        history = items[row, :length].tolist()
        for item in (1, 7, 28):
            wanted = slow_score(generator, catalogue, history, item)
            assert float(scores[row, item]) == pytest.approx(wanted, abs=1e-10)
    torch.testing.assert_close(found, scores.gather(1, ids))
    order = torch.argsort(scores[:, 1:], dim=1, descending=True, stable=True) + 1
    assert torch.equal(ids, order)


def test_items_of_equal_codes_are_told_apart_no_more_than_their_leaf() -> None:
    """Two items of one leaf share its probability; two leaves of like codes need not."""
    catalogue, generator = build(3, 2, 3)  # the last four items copy the first four
    with torch.no_grad():
        memory = generator.encode(catalogue, torch.tensor([[5, 6]]))
        scores = exact_scores(generator, catalogue, memory)
    assert float(scores[0, 1]) == float(scores[0, N_ITEMS - 4])


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"generation_loss": "code"}, "generation_loss"),
        ({"vector_dim": 0, "similarity": False}, "vector_dim"),
    ],
)
def test_what_an_item_head_needs(options, field: str) -> None:
    catalogue = small_catalogue(N_ITEMS)
    with pytest.raises(ValueError, match=field):
        small_generator(catalogue, **{**OPTIONS, **options})


def test_without_an_item_head_there_is_none() -> None:
    catalogue = small_catalogue(N_ITEMS)
    generator = small_generator(catalogue, generation_loss="item")
    with pytest.raises(ValueError, match="item_head"):
        generator.node_weights(catalogue, generator.tokens.project())
    assert catalogue.vectors.shape[1] == VECTOR_DIM


@pytest.mark.parametrize("item_embedding", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_of_the_weights(shape, item_embedding: bool) -> None:
    """Finite differences, with items that may not be generated and nodes asked for twice."""
    torch.manual_seed(0)
    levels, signals, codes = shape
    full = small_catalogue(N_ITEMS, levels, signals, codes)
    kept = torch.tensor([i for i in range(1, N_ITEMS) if i not in (2, 9, 28)])
    catalogue = Catalogue.build(full.codes, full.vectors, codes, kept)
    generator = small_generator(catalogue, **{**OPTIONS, "item_embedding": item_embedding})
    chosen = [torch.randint(0, len(nodes), (4,)) for nodes in catalogue.trie.codes[1:]]

    def tables(*inputs: Tensor) -> tuple[Tensor, ...]:
        biases, content, items, *weights = inputs
        own = items if item_embedding else None

        def linear(x: Tensor) -> Tensor:
            return x @ content.t()

        made = NodeWeights(catalogue, weights, biases, linear, own).tables(chosen)
        return tuple(part for table in made for part in table)

    items = generator.items.weight if item_embedding else torch.zeros(1)
    inputs = (generator.head_bias, generator.content.weight, items, *generator.head_weight)
    inputs = tuple(x.detach().double().requires_grad_() for x in inputs)
    assert torch.autograd.gradcheck(tables, inputs)


@pytest.mark.parametrize("logits", [1, 1 << 22])
def test_first_level_against_a_plain_cross_entropy(logits: int, monkeypatch) -> None:
    """Value and gradient, in blocks and whole; logits far from zero; under autocast, roughly."""
    monkeypatch.setattr(root_loss, "_LOGITS", logits)
    torch.manual_seed(0)
    weights, biases, states = torch.randn(50, 8) * 9, torch.randn(50) * 9, torch.randn(40, 8)
    nodes = torch.randint(0, 50, (40,))

    def both(dtype: torch.dtype) -> list[list[Tensor]]:
        inputs = [x.to(dtype).requires_grad_() for x in (weights, biases, states)]
        plain = torch.nn.functional.cross_entropy(
            inputs[2] @ inputs[0].t() + inputs[1], nodes, reduction="sum"
        )
        values = [root_loss.root_loss(*inputs, nodes), plain]
        return [[v, *torch.autograd.grad(v * 0.3, inputs)] for v in values]

    for got, wanted in zip(*both(torch.float64)):
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)
    with torch.autocast("cpu", torch.bfloat16):
        for got, wanted in zip(*both(torch.float32)):
            assert got.dtype == torch.float32
            assert float((got - wanted).detach().norm()) < 0.02 * float(wanted.detach().norm())
