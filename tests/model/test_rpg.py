"""RPG: parallel digits, exact scores of all items, and the loss, each against a loop."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from recbole_bbqrec.model.sequential_recommender import rpg
from tests.support.fused import build, rows_of_test


@pytest.fixture
def model():
    built, _ = build("RPG", code_digits=5, codebook_size=6)
    torch.manual_seed(3)
    torch.nn.init.normal_(built.head_weight, std=0.2)
    torch.nn.init.normal_(built.head_bias, std=0.2)
    return built


def brute_force_log_probability(model, state: torch.Tensor, item: int) -> torch.Tensor:
    """Sum over digits of log softmax(cos(head, code) / temperature), float64."""
    codes = model.item_codes
    table = codes.code_embedding.detach().double().view(codes.digits, codes.codebook_size, -1)
    total = torch.zeros((), dtype=torch.float64)
    for digit in range(codes.digits):
        inner = state @ model.head_weight[digit].detach().double()
        inner = inner + model.head_bias[digit, 0].detach().double()
        head = state + inner * torch.sigmoid(inner)
        logits = torch.stack([F.cosine_similarity(head, c, 0) for c in table[digit]])
        total += (logits / model.temperature).log_softmax(0)[codes.codes[item, digit]]
    return total


@pytest.mark.parametrize("at_once", [32, 2])
def test_scores_of_all_items_equal_brute_force(model, at_once, monkeypatch):
    monkeypatch.setattr(rpg, "_STATES", at_once)
    states = torch.randn(3, 16)
    scores = model.item_logits(states)
    assert scores.shape == (3, model.n_items - 1)
    for item in (1, 2, 77, model.n_items - 1):
        for row, state in enumerate(states.double()):
            expected = brute_force_log_probability(model, state, item)
            torch.testing.assert_close(
                scores[row, item - 1].double(), expected, rtol=1e-4, atol=1e-3
            )


def test_loss_is_the_mean_over_digits(model):
    states, targets = torch.randn(4, 16), torch.tensor([1, 50, 50, 9])
    loss = model.target_loss(states, targets)
    scores = model.item_logits(states)[torch.arange(4), targets - 1]
    torch.testing.assert_close(loss, -scores / 5)


def test_each_digit_is_a_distribution(model):
    log_probabilities = model.digit_log_probabilities(torch.randn(7, 16))
    assert log_probabilities.shape == (5, 7, 6)
    torch.testing.assert_close(log_probabilities.exp().sum(-1), torch.ones(5, 7))


def test_digits_differ_only_through_their_blocks_and_codes():
    fresh, _ = build("RPG")
    torch.testing.assert_close(fresh.head_weight, torch.zeros_like(fresh.head_weight))
    state = torch.randn(2, 16)
    heads = F.normalize(state, dim=-1) @ F.normalize(fresh.item_codes.table()[1], dim=-1).T
    expected = (heads / fresh.temperature).log_softmax(-1)
    torch.testing.assert_close(fresh.digit_log_probabilities(state)[1], expected)


def test_items_with_equal_codes_tie():
    built, data = build("RPG", code_digits=2, codebook_size=4)
    rows = rows_of_test(data, 2)
    scores = built.full_sort_predict(rows)
    codes = built.item_codes.codes
    same = [i for i in range(2, built.n_items) if torch.equal(codes[i], codes[1])]
    assert same
    torch.testing.assert_close(scores[:, same], scores[:, [1]].expand(-1, len(same)))


def test_gradient_reaches_codes_heads_and_encoder(model):
    states = model.states(torch.tensor([[1, 2, 3]]))[0]
    model.target_loss(states, torch.tensor([2, 3, 4])).mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.abs().sum() > 0), name
