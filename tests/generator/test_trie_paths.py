"""Levels that leave no choice are not decoded: same loss, same gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from recbole_bbqrec.generator.batch.packing import Packing
from recbole_bbqrec.generator.batch.trie_paths import Choices, choices
from recbole_bbqrec.generator.items.catalogue import Catalogue
from recbole_bbqrec.generator.items.trie import Trie
from recbole_bbqrec.generator.network import training_batch
from recbole_bbqrec.generator.network.decoder_rows import Steps
from recbole_bbqrec.generator.network.seq2seq import Generator
from tests.support.generator import histories, small_catalogue, small_generator

N_ITEMS = 30
HEAD = {"item_embedding": True, "item_head": True, "n_items": N_ITEMS}
SHAPES = [(3, 1, 6), (3, 3, 2), (4, 2, 3), (2, 2, 4)]  # levels, signals, codes


def full_depth(trie: Trie, items: Tensor) -> Choices:
    """Take every level of every target for one that must be decoded."""
    paths = choices(trie, items)
    return paths._replace(depth=torch.full_like(paths.depth, trie.levels))


def batch(catalogue: Catalogue, encoding: str) -> tuple[Tensor, Tensor]:
    """Users with none to four targets; or one each, at the end, of all kinds of item."""
    lengths = [5, 3, 1, 4, 6]
    items = histories(catalogue, lengths, 6)
    if encoding == "causal":
        targets = torch.tensor(
            [[0, 4, 0, 28, 9, 0], [3, 12, 7, 0, 0, 0], [29, 0, 0, 0, 0, 0], [0] * 6,
             [0, 0, 1, 2, 27, 11]]
        )  # fmt: skip
        return items, targets
    targets = torch.zeros_like(items)
    targets[torch.arange(5), torch.tensor(lengths) - 1] = torch.tensor([4, 28, 7, 12, 1])
    return items, targets


def loss_and_gradients(generator: Generator, *arguments: Any) -> tuple[Tensor, list[Tensor]]:
    loss, _ = generator.loss(*arguments)
    parameters = list(generator.parameters())
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    return loss, [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients)]


@pytest.mark.slow
@pytest.mark.parametrize("start", ["history", "token"])
@pytest.mark.parametrize("encoding", ["causal", "bidirectional"])
@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_gradients_of_open_levels_are_those_of_all(
    shape: tuple[int, int, int], head: bool, encoding: str, start: str, monkeypatch
) -> None:
    torch.manual_seed(sum(shape))
    catalogue = small_catalogue(N_ITEMS, *shape)
    options = {"history_encoding": encoding, "decoder_start": start, **(HEAD if head else {})}
    generator = small_generator(catalogue, generation_loss="item", **options)
    items, targets = batch(catalogue, encoding)
    depth = choices(catalogue.trie, targets[targets != 0]).depth
    assert int(depth.min()) < shape[0]  # there is something to leave out
    got, gradients = loss_and_gradients(generator, catalogue, items, targets)
    monkeypatch.setattr(training_batch, "choices", full_depth)
    wanted, references = loss_and_gradients(generator, catalogue, items, targets)
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)
    for (name, _), one, other in zip(generator.named_parameters(), gradients, references):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11, msg=name)


@pytest.mark.parametrize("head", [True, False])
def test_a_first_level_without_further_choice(head: bool) -> None:
    """One row a target: the decoder never sees a code, and the loss is that of the first level."""
    torch.manual_seed(0)
    codes = torch.randint(0, N_ITEMS, (N_ITEMS, 3, 2))
    codes[:, 0] = torch.arange(N_ITEMS)[:, None]
    catalogue = Catalogue.build(codes, torch.randn(N_ITEMS, 6).double(), N_ITEMS)
    options = {"generation_loss": "item", **(HEAD if head else {})}
    generator = small_generator(catalogue, **options)
    loss, terms = generator.loss(catalogue, *batch(catalogue, "causal"))
    assert float(loss.detach()) == float(terms["level_1"]) > 0
    assert float(terms["level_2"]) == float(terms["level_3"]) == 0


@pytest.mark.parametrize("head", [True, False])
def test_in_bfloat16(head: bool, monkeypatch) -> None:
    torch.manual_seed(1)
    catalogue = small_catalogue(N_ITEMS)
    assert catalogue.vectors is not None
    catalogue = Catalogue.build(catalogue.codes, catalogue.vectors.float(), 3)
    options = {"generation_loss": "item", **(HEAD if head else {})}
    generator = small_generator(catalogue, **options).float()
    items, targets = batch(catalogue, "causal")
    with torch.no_grad():
        exact = float(generator.loss(catalogue, items, targets)[0])
        with torch.autocast("cpu", torch.bfloat16):
            got = float(generator.loss(catalogue, items, targets)[0])
            monkeypatch.setattr(training_batch, "choices", full_depth)
            wanted = float(generator.loss(catalogue, items, targets)[0])
    assert got == pytest.approx(wanted, rel=1e-2)
    assert got == pytest.approx(exact, rel=3e-2)


@pytest.mark.parametrize("options", [{}, HEAD])
def test_the_same_seed_gives_the_same_bits(options: dict[str, Any]) -> None:
    torch.manual_seed(2)
    catalogue = small_catalogue(N_ITEMS)
    generator = small_generator(catalogue, generation_loss="item", dropout=0.3, **options).train()
    runs = []
    for _ in range(2):
        torch.manual_seed(7)
        runs.append(loss_and_gradients(generator, catalogue, *batch(catalogue, "causal")))
    assert torch.equal(runs[0][0], runs[1][0])
    assert all(torch.equal(*pair) for pair in zip(runs[0][1], runs[1][1]))


def test_choices() -> None:
    """Items 1, 2: a choice at level 1; 3, 4: at level 2; 5: none; 6, 7: a shared leaf."""
    paths = [[0, 0, 0], [0, 1, 0], [1, 0, 0], [1, 0, 1], [2, 0, 0], [3, 1, 1], [3, 1, 1]]
    trie = Trie.build(torch.tensor([[0, 0, 0], *paths]).unsqueeze(2), 4)
    found = choices(trie, torch.tensor([5, 4, 1, 7, 3]))
    assert found.depth.tolist() == [1, 3, 2, 1, 3]
    assert [which.tolist() for which in found.open] == [[0, 1, 2, 3, 4], [2], [1, 4]]
    rows = torch.tensor([50, 40, 41, 42, 10, 11, 70, 30, 31, 32])
    assert [part.tolist() for part in found.rows(rows)] == [[50, 40, 10, 70, 30], [11], [42, 32]]


def test_steps() -> None:
    slots = Packing(torch.tensor([[True, True], [True, False], [True, True]]))
    steps = Steps(slots, torch.tensor([1, 3, 2, 1, 1]), 3)
    rows = torch.arange(1, 9)
    wanted = [[1, 0, 0], [2, 3, 4], [5, 6, 0], [7, 0, 0], [8, 0, 0]]
    assert steps.grid.unpack(rows).tolist() == wanted
    assert steps.cells.unpack(rows).tolist() == [[1, 2, 3, 4], [5, 6, 0, 0], [7, 8, 0, 0]]
