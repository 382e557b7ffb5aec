"""The sampled item head against the full one, in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from recbole_bbqrec.generator.batch.trie_paths import choices
from recbole_bbqrec.generator.head import parts, sampled_head
from recbole_bbqrec.generator.head.head_loss import root_loss
from recbole_bbqrec.generator.head.item_scores import ItemScores
from recbole_bbqrec.generator.head.sampled_head import (
    ItemSample,
    draw,
    is_sampled,
    sampled_root_loss,
)
from recbole_bbqrec.generator.items.catalogue import Catalogue
from recbole_bbqrec.generator.network.seq2seq import Generator
from recbole_bbqrec.generator.settings import GeneratorSettings
from tests.support.generator import small_catalogue, small_generator

N_ITEMS = 61
ITEMS = torch.tensor([[9, 3, 28, 3], [17, 5, 0, 0]])  # one item occurs twice
TARGETS = torch.tensor([[0, 3, 28, 9], [0, 17, 0, 0]])
HEAD = {
    "generation_loss": "item", "item_embedding": True, "item_head": True, "repeat_logit": True,
    "n_items": N_ITEMS, "feature_dim": 4, "history_tokens": "item",
}  # fmt: skip


def network(shape: tuple[int, int, int] = (2, 2, 4), **options: Any) -> tuple[Catalogue, Generator]:
    torch.manual_seed(3)
    catalogue = small_catalogue(N_ITEMS, *shape, feature_dim=4)
    return catalogue, small_generator(catalogue, **{**HEAD, **options})


def loss_and_gradient(catalogue: Catalogue, generator: Generator) -> tuple[Tensor, Tensor]:
    """The loss, and all gradients as one vector."""
    generator.zero_grad()
    loss, _ = generator.loss(catalogue, ITEMS, TARGETS)
    loss.backward()
    grads = [p.grad.flatten() for p in generator.parameters() if p.grad is not None]
    return loss.detach(), torch.cat(grads)


@pytest.mark.parametrize("in_parts", [False, True])
@pytest.mark.parametrize("shape", [(2, 2, 4), (3, 1, 3), (1, 2, 8)])
def test_all_items_drawn_give_the_full_loss(shape, in_parts: bool, monkeypatch) -> None:
    wanted = loss_and_gradient(*network(shape, item_head_sampling="full"))
    if in_parts:
        monkeypatch.setattr(parts, "KEYS_AT_ONCE", 40)
    sampled = network(shape, item_head_sampling="sampled", item_head_samples=10_000)
    for found, value in zip(loss_and_gradient(*sampled), wanted):
        torch.testing.assert_close(found, value, rtol=1e-10, atol=1e-12)


def test_the_mean_gradient_of_many_draws_is_the_full_one() -> None:
    """Biases of the logarithm are far below the standard error for such scores."""
    torch.manual_seed(0)
    trie, n, width = small_catalogue(201, 2, 2, 6).trie, 8, 5
    items, targets = torch.randint(1, 201, (n, 3)), torch.randint(1, 201, (n,))
    last = torch.randint(0, 3, (n,))
    shapes = (n, 12), (200, width), (n, width), (20,)  # logits, keys, states, repeats
    inputs = [torch.randn(*s, dtype=torch.float64).mul_(0.3).requires_grad_() for s in shapes]
    paths = choices(trie, targets)
    nodes = paths.nodes[:, 0]
    config = network(item_head_sampling="sampled", item_head_samples=100)[1].config

    def gradient(sample: ItemSample | None) -> Tensor:
        held = None if sample is None else sample.held
        keys = inputs[1] if held is None else inputs[1][held]
        scores = ItemScores.of(trie, keys, *inputs[2:], items, last, held)
        if sample is None:
            loss = root_loss(inputs[0], scores, nodes)
        else:
            loss = sampled_root_loss(inputs[0], scores, nodes, sample)
        return torch.cat([grad.flatten() for grad in torch.autograd.grad(loss, inputs)])

    batch = torch.cat([items.flatten(), targets])
    drawn = torch.stack([gradient(draw(config, trie, batch, paths)) for _ in range(150)])
    error, wanted = drawn.std(0) / 150**0.5, gradient(None)
    moving = error > 1e-9  # the others do not depend on the draws
    score = ((drawn.mean(0) - wanted) / error)[moving]
    assert int(moving.sum()) > 1000
    assert float(score.pow(2).mean()) < 1.3**2  # 1 for a mean that errs by its standard error
    torch.testing.assert_close(drawn.mean(0)[~moving], wanted[~moving], rtol=1e-6, atol=1e-8)


def test_weighted_draws_add_up_to_all_items() -> None:
    """The sum that is estimated has no bias: over draws, any function's sum is the full one."""
    catalogue, generator = network(item_head_sampling="sampled", item_head_samples=13)
    trie = catalogue.trie
    paths = choices(trie, TARGETS[TARGETS > 0])
    values = torch.rand(len(trie.leaf_items), dtype=torch.float64)
    sums = torch.stack(
        [
            (values[sample.candidates] * sample.log_weight.exp()).sum()
            for sample in (draw(generator.config, trie, ITEMS, paths) for _ in range(400))
        ]
    )
    error = float(sums.std()) / 400**0.5
    assert float(sums.mean()) == pytest.approx(float(values.sum()), abs=3 * error)
    # The batch's own items are always there, each once.
    sample = draw(generator.config, trie, ITEMS, paths)
    own = trie.item_places[torch.unique(ITEMS[ITEMS > 0])]
    place = torch.searchsorted(sample.candidates, own)
    assert torch.equal(sample.candidates[place], own) and not sample.log_weight[place].any()


def test_a_seed_gives_the_same_bits_and_the_full_head_draws_nothing() -> None:
    model = network(item_head_sampling="sampled", item_head_samples=10)
    values = []
    for seed in (7, 7, 8):
        torch.manual_seed(seed)
        values.append(loss_and_gradient(*model)[1])
    assert torch.equal(values[0], values[1]) and not torch.equal(values[0], values[2])
    torch.manual_seed(7)
    before = torch.get_rng_state()
    loss_and_gradient(*network(item_head_sampling="auto"))
    torch.manual_seed(7)
    loss_and_gradient(*model)
    assert not torch.equal(torch.get_rng_state(), before)


def test_auto_samples_large_catalogues_alone(monkeypatch) -> None:
    catalogue, generator = network()
    trie = catalogue.trie
    assert generator.config.item_head_sampling == "auto"
    assert not is_sampled(generator.config, trie)
    monkeypatch.setattr(sampled_head, "SAMPLED_FROM", N_ITEMS - 1)
    assert is_sampled(generator.config, trie)
    assert not is_sampled(network(item_head_sampling="full")[1].config, trie)


def test_sampling_without_the_head_is_refused() -> None:
    with pytest.raises(ValueError, match="item_head_sampling"):
        GeneratorSettings(n_signals=1, item_head=False, repeat_logit=False,
                          vector_dim=4, n_items=5, item_head_sampling="sampled")  # fmt: skip
