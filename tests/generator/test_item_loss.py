from __future__ import annotations

import pytest
import torch
from torch import Tensor

from recbole_bbqrec.generator.batch.trie_paths import Choices, choices
from recbole_bbqrec.generator.head import normaliser
from recbole_bbqrec.generator.head.losses import code_loss
from recbole_bbqrec.generator.items.trie import Trie
from tests.support.generator import (
    histories,
    level_logits,
    slow_item_score,
    small_catalogue,
    small_generator,
)

SHAPES = [(3, 1, 3), (3, 2, 3), (1, 2, 6), (2, 3, 2)]


@pytest.mark.slow
@pytest.mark.parametrize("levels, signals, codes", SHAPES)
def test_probabilities_of_all_items_sum_to_one(levels: int, signals: int, codes: int) -> None:
    torch.manual_seed(0)
    catalogue = small_catalogue(30, levels, signals, codes)
    generator = small_generator(catalogue, generation_loss="item")
    every = torch.arange(1, 30)
    history = torch.randint(1, 30, (1, 4)).expand(29, -1)
    targets = torch.zeros_like(history)
    total = 0.0
    for item in every.tolist():
        targets[:, 3] = 0
        targets[0, 3] = item
        total += float((-generator.loss(catalogue, history[:1], targets[:1])[0]).exp().detach())
    assert total == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("loss", ["code", "item"])
@pytest.mark.parametrize("levels, signals, codes", SHAPES)
def test_loss_equals_brute_force(loss: str, levels: int, signals: int, codes: int) -> None:
    torch.manual_seed(1)
    catalogue = small_catalogue(30, levels, signals, codes)
    generator = small_generator(catalogue, generation_loss=loss)
    items = histories(catalogue, [4, 2], 4)
    targets = torch.tensor([[0, 3, 28, 9], [0, 17, 0, 0]])
    with torch.no_grad():
        value, terms = generator.loss(catalogue, items, targets)
    wanted = [
        slow_item_score(generator, catalogue, items[b, : t + 1].tolist(), int(targets[b, t]))
        for b, t in targets.nonzero().tolist()
    ]
    assert float(value) == pytest.approx(-sum(wanted) / len(wanted), abs=1e-10)
    assert list(terms) == [f"level_{j + 1}" for j in range(levels)]
    assert float(sum(terms.values())) == pytest.approx(float(value), abs=1e-12)


def naive_normaliser(logits: Tensor, trie: Trie, level: int, parents: Tensor) -> Tensor:
    rows = []
    for row, parent in zip(logits, parents.tolist()):
        first, count = trie.children(level, torch.tensor(parent))
        columns = trie.columns(level)[int(first) : int(first + count)]
        rows.append(torch.logsumexp(row[columns].sum(1), 0))
    return torch.stack(rows)


@pytest.mark.parametrize("block", [1, 40, 1 << 21])
@pytest.mark.parametrize("signals", [1, 3])
def test_normalisers_and_gradients(signals: int, block: int, monkeypatch) -> None:  # type: ignore
    """Value and gradient against autograd through a loop, whatever the blocks."""
    monkeypatch.setattr(normaliser, "_BLOCK", block)
    torch.manual_seed(2)
    trie = Trie.build(torch.randint(0, 4, (40, 2, signals)), 4)
    logits = (torch.randn(50, signals * 4, dtype=torch.float64) * 5).requires_grad_()
    weight = torch.randn(50, dtype=torch.float64)
    parents = torch.randint(0, len(trie.codes[0]), (50,))
    first = torch.zeros_like(parents)
    paths = Choices(torch.stack([parents, first], 1), (first, torch.arange(50)), first + 2)
    runs = normaliser.child_runs(trie, paths, 1)
    pairs = [
        (normaliser.root_normaliser(logits, trie), 0, torch.zeros(50, dtype=torch.int64)),
        (normaliser.child_normaliser(logits, trie, 1, parents, runs), 1, parents),
    ]
    for value, level, nodes in pairs:
        reference = naive_normaliser(logits, trie, level, nodes)
        torch.testing.assert_close(value, reference)
        got, wanted = (torch.autograd.grad(v @ weight, logits)[0] for v in (value, reference))
        torch.testing.assert_close(got, wanted)


def test_normaliser_of_extreme_logits() -> None:
    """The best child may lie far below the sum of the signals' best codes, and far above 0."""
    trie = Trie.build(torch.tensor([[[0, 0]], [[0, 1]], [[1, 0]]]), 2)
    logits = torch.tensor([[500.0, 0.0, 500.0, 0.0], [-900.0, -900.0, 0.0, 0.0]])
    value = normaliser.root_normaliser(logits, trie)
    wanted = naive_normaliser(logits, trie, 0, torch.zeros(2, dtype=torch.int64))
    torch.testing.assert_close(value, wanted)


def test_label_smoothing() -> None:
    torch.manual_seed(3)
    logits, codes = torch.randn(5, 8, dtype=torch.float64), torch.randint(0, 4, (5, 1, 2))
    logs = logits.view(5, 2, 4).log_softmax(-1)
    hard = logs.gather(2, codes[:, 0, :, None]).sum()
    wanted = -(0.9 * hard + 0.1 * logs.mean(-1).sum()) / 5
    torch.testing.assert_close(code_loss([logits], codes, 0.1)[0], wanted)


def test_target_outside_the_trie() -> None:
    codes = torch.randint(0, 3, (6, 2, 1))
    trie = Trie.build(codes, 3, torch.tensor([1, 2, 4, 5]))
    with pytest.raises(ValueError, match="item 3"):
        choices(trie, torch.tensor([2, 3]))


def test_reference_uses_the_right_shapes() -> None:
    catalogue = small_catalogue()
    logits = level_logits(small_generator(catalogue), catalogue, [1, 2], catalogue.codes[3])
    assert [tuple(x.shape) for x in logits] == [(2, 3)] * 3
