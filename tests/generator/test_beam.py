from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from recbole_bbqrec.generator.inference import beam, scoring
from recbole_bbqrec.generator.inference.beam import beam_search
from recbole_bbqrec.generator.inference.exact import exact_scores
from recbole_bbqrec.generator.items.catalogue import Catalogue
from tests.support.generator import (
    VECTOR_DIM,
    histories,
    level_logits,
    slow_item_score,
    small_catalogue,
    small_generator,
)

LENGTHS = [5, 1, 3]


def search(generator: Any, catalogue: Any, items: Any, width: int, top_k: Any = None) -> Any:
    with torch.no_grad():
        return beam_search(generator, catalogue, generator.encode(catalogue, items), width, top_k)


@pytest.mark.parametrize("padded", [1 << 16, pytest.param(-1 << 40, marks=pytest.mark.slow)])
@pytest.mark.parametrize("encoding", ["causal", "bidirectional"])
@pytest.mark.parametrize("loss", ["code", "item"])
@pytest.mark.parametrize("levels, signals, codes", [(3, 2, 3), (3, 1, 3), (1, 2, 6), (4, 1, 2)])
def test_full_width_equals_brute_force(
    encoding: str, loss: str, levels: int, signals: int, codes: int, padded: int, monkeypatch: Any
) -> None:
    monkeypatch.setattr(beam, "_PADDED", padded)
    torch.manual_seed(0)
    catalogue = small_catalogue(20, levels, signals, codes)
    generator = small_generator(catalogue, generation_loss=loss, history_encoding=encoding)
    items = histories(catalogue, LENGTHS, 5)
    found, scores = search(generator, catalogue, items, width=25)
    assert found.shape == scores.shape == (3, 19)
    for b, length in enumerate(LENGTHS):
        history = items[b, :length].tolist()
        slow = {i: slow_item_score(generator, catalogue, history, i) for i in range(1, 20)}
        # Items of one leaf have the same score; rounding may not decide their order.
        leaf = catalogue.trie.item_nodes[:, -1].tolist()
        best = {leaf[i]: max(s for j, s in slow.items() if leaf[j] == leaf[i]) for i in slow}
        ranked = sorted(slow, key=lambda i: (-best[leaf[i]], i))
        assert found[b].tolist() == ranked
        wanted = torch.tensor([slow[i] for i in ranked], dtype=torch.float64)
        torch.testing.assert_close(scores[b], wanted, atol=1e-10, rtol=0)


@pytest.mark.parametrize("loss", ["code", "item"])
@pytest.mark.parametrize("chunk", [3, 512])
def test_exact_scorer_equals_brute_force(loss: str, chunk: int) -> None:
    torch.manual_seed(1)
    catalogue = small_catalogue(25)
    catalogue = Catalogue.build(
        catalogue.codes, catalogue.vectors, 3, torch.arange(1, 25)[torch.arange(24) != 6]
    )
    generator = small_generator(catalogue, generation_loss=loss)
    items = histories(catalogue, LENGTHS, 5)
    got = exact_scores(generator, catalogue, generator.encode(catalogue, items), chunk)
    assert torch.isinf(got[:, [0, 7]]).all()
    for b, length in enumerate(LENGTHS):
        for item in (1, 6, 8, 24):
            slow = slow_item_score(generator, catalogue, items[b, :length].tolist(), item)
            assert float(got[b, item]) == pytest.approx(slow, abs=1e-10)


def test_exact_item_probabilities_sum_to_one() -> None:
    torch.manual_seed(2)
    catalogue = small_catalogue(40)
    generator = small_generator(catalogue, generation_loss="item")
    memory = generator.encode(catalogue, histories(catalogue, LENGTHS, 5))
    mass = exact_scores(generator, catalogue, memory).exp().sum(1)
    torch.testing.assert_close(mass, torch.ones_like(mass))


def slow_beam(generator: Any, catalogue: Any, history: list[int], width: int) -> dict[int, float]:
    """The definition of a beam: expand, keep the best ``width``, level by level, in Python."""
    trie = catalogue.trie
    kept: dict[Any, float] = {(): 0.0}
    share = generator.config.generation_loss == "item"
    paths = {i: [tuple(t) for t in catalogue.codes[i].tolist()] for i in range(1, 20)}
    for level in range(trie.levels):
        grown: dict[Any, float] = {}
        for item, path in paths.items():
            prefix = tuple(path[: level + 1])
            if prefix[:-1] in kept and prefix not in grown:
                grown[prefix] = partial_score(generator, catalogue, history, item, level)
        if level == trie.levels - 1 and share:
            for prefix in grown:
                grown[prefix] -= math.log(sum(tuple(p) == prefix for p in paths.values()))
        kept = dict(sorted(grown.items(), key=lambda pair: -pair[1])[:width])
    return {i: kept[tuple(p)] for i, p in paths.items() if tuple(p) in kept}


def partial_score(
    generator: Any, catalogue: Any, history: list[int], item: int, level: int
) -> float:
    """Score of an item's first ``level + 1`` tokens: brute force in a catalogue cut short."""
    codes = catalogue.codes
    logits = level_logits(generator, catalogue, history, codes[item])
    total = torch.zeros((), dtype=torch.float64)
    for j in range(level + 1):
        token = codes[item, j]
        if generator.config.generation_loss == "code":
            logs = logits[j].log_softmax(-1)
            total = total + logs[torch.arange(len(token)), token].sum()
            continue
        same = (codes[1:, :j] == codes[item, :j]).all(2).all(1)
        siblings = torch.unique(codes[1:][same][:, j], dim=0)
        sums = torch.stack([logits[j][torch.arange(len(token)), s].sum() for s in siblings])
        total = total + logits[j][torch.arange(len(token)), token].sum() - sums.logsumexp(0)
    return float(total)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["code", "item"])
@pytest.mark.parametrize("block", [1, 1 << 21])
@pytest.mark.parametrize("padded", [-1 << 40, 1 << 16])
@pytest.mark.parametrize("width", [1, 4])
def test_narrow_beam_equals_its_definition(
    loss: str, width: int, padded: int, block: int, monkeypatch: Any
) -> None:
    """Children listed without padding, in blocks or at once, and padded to the widest node."""
    monkeypatch.setattr(beam, "_BLOCK", block)
    monkeypatch.setattr(beam, "_PADDED", padded)
    torch.manual_seed(3)
    catalogue = small_catalogue(20)
    generator = small_generator(catalogue, generation_loss=loss)
    items = histories(catalogue, LENGTHS, 5)
    found, scores = search(generator, catalogue, items, width)
    for b, length in enumerate(LENGTHS):
        slow = slow_beam(generator, catalogue, items[b, :length].tolist(), width)
        wanted = torch.tensor(sorted(slow.values(), reverse=True)[:width], dtype=torch.float64)
        torch.testing.assert_close(scores[b], wanted, atol=1e-10, rtol=0)
        for item, score in zip(found[b].tolist(), scores[b].tolist()):
            assert slow[item] == pytest.approx(score, abs=1e-10)


@pytest.mark.parametrize("loss", ["code", "item"])
@pytest.mark.parametrize("levels", [1, 2])
@pytest.mark.parametrize("width", [1, 5, 60])
def test_first_level_in_blocks_equals_all_scores(
    loss: str, levels: int, width: int, monkeypatch: Any
) -> None:
    """Blocks of few nodes and few rows find the same best nodes as a sort of all of them."""
    monkeypatch.setattr(scoring, "_ROOT_ROWS", 2)
    torch.manual_seed(11)
    trie = small_catalogue(50, levels=levels, codes=6).trie
    logits = 3 * torch.randn(5, 12, dtype=torch.float64)
    wanted = scoring.root_scores(logits, trie, loss)
    if loss == "item" and levels == 1:
        wanted = wanted + scoring.leaf_share(trie, torch.arange(wanted.shape[1]), wanted.dtype)
    wanted = wanted.sort(1, descending=True).values[:, :width]
    for block in (1, 8, 26, 1 << 21):
        best, nodes = scoring.root_top(logits, trie, loss, width, block)
        torch.testing.assert_close(best.sort(1, descending=True).values, wanted)
        share = scoring.root_scores(logits, trie, loss).gather(1, nodes)
        if loss == "item" and levels == 1:
            share = share + scoring.leaf_share(trie, nodes, share.dtype)
        torch.testing.assert_close(best, share)
        assert all(len(set(row)) == wanted.shape[1] for row in nodes.tolist())


@pytest.mark.parametrize("loss", ["code", "item"])
def test_results_do_not_depend_on_the_batch_or_the_padding(loss: str) -> None:
    torch.manual_seed(4)
    catalogue = small_catalogue(40)
    generator = small_generator(catalogue, generation_loss=loss)
    items = histories(catalogue, LENGTHS, 5)
    found, scores = search(generator, catalogue, items, 6)
    padded = torch.cat([items, items.new_zeros(3, 1)], 1)
    for b, length in enumerate(LENGTHS):
        for alone in (items[b : b + 1, :length], padded[b : b + 1]):
            one, score = search(generator, catalogue, alone, 6)
            assert one[0].tolist() == found[b].tolist()
            torch.testing.assert_close(score[0], scores[b])


@pytest.mark.parametrize("loss", ["code", "item"])
def test_one_node_with_most_of_the_catalogue(loss: str) -> None:
    """Skewed branching: the wide beam must still equal the exact scores."""
    torch.manual_seed(5)
    codes = torch.randint(0, 40, (600, 2, 1))
    codes[1:500, 0] = 7
    catalogue = Catalogue.build(codes, torch.randn(600, VECTOR_DIM).double(), 40)
    generator = small_generator(catalogue, generation_loss=loss)
    items = histories(catalogue, LENGTHS, 5)
    exact = exact_scores(generator, catalogue, generator.encode(catalogue, items))
    found, scores = search(generator, catalogue, items, 599)
    torch.testing.assert_close(scores, exact.gather(1, found))
    assert all(len(set(row)) == 599 for row in found.tolist())
    assert bool((scores[:, :-1] >= scores[:, 1:]).all())


def test_flat_trie_skips_the_decoder_without_changing_the_scores(monkeypatch: Any) -> None:
    """The item loss needs the first level only, with one child everywhere below the root."""
    torch.manual_seed(6)
    codes = torch.cat([torch.arange(12).view(-1, 1, 1), torch.randint(0, 12, (12, 2, 1))], 1)
    catalogue = Catalogue.build(codes, torch.randn(12, VECTOR_DIM).double(), 12)
    generator = small_generator(catalogue, generation_loss="item")
    items = histories(catalogue, LENGTHS, 5)
    exact = exact_scores(generator, catalogue, generator.encode(catalogue, items))
    monkeypatch.setattr(beam.Decoder, "advance", None)
    found, scores = search(generator, catalogue, items, 5)
    torch.testing.assert_close(scores, exact.topk(5).values)
    torch.testing.assert_close(exact.gather(1, found), scores)


def test_ties_go_to_the_smaller_id_and_top_k_cuts() -> None:
    torch.manual_seed(7)
    codes = torch.zeros(9, 2, 2, dtype=torch.int64)
    codes[5:, 1] = 1
    catalogue = Catalogue.build(codes, torch.randn(9, VECTOR_DIM).double(), 2)
    generator = small_generator(catalogue)
    found, scores = search(generator, catalogue, torch.tensor([[3, 1]]), 8)
    assert found[0].tolist() in ([1, 2, 3, 4, 5, 6, 7, 8], [5, 6, 7, 8, 1, 2, 3, 4])
    assert len(set(scores[0].tolist())) == 2
    assert search(generator, catalogue, torch.tensor([[3, 1]]), 8, 3)[0].tolist() == [
        found[0, :3].tolist()
    ]


def test_scores_are_float32_under_bfloat16_autocast() -> None:
    torch.manual_seed(8)
    catalogue = small_catalogue(30)
    generator = small_generator(catalogue).float()
    catalogue = Catalogue.build(catalogue.codes, torch.randn(30, VECTOR_DIM), 3)
    items = histories(catalogue, LENGTHS, 5)
    full = search(generator, catalogue, items, 29)
    with torch.autocast("cpu", torch.bfloat16):
        half = search(generator, catalogue, items, 29)
    assert half[1].dtype == torch.float32
    for row in range(3):
        a, b = (dict(zip(x[0][row].tolist(), x[1][row].tolist())) for x in (full, half))
        assert a.keys() == b.keys()
        assert max(abs(a[i] - b[i]) for i in a) < 0.5


@pytest.mark.parametrize("width, top_k", [(0, None), (3, 4), (3, 0)])
def test_bad_widths(width: int, top_k: Any) -> None:
    catalogue = small_catalogue()
    with pytest.raises(ValueError, match="num_beams"):
        search(small_generator(catalogue), catalogue, torch.tensor([[1]]), width, top_k)


def test_training_mode_is_refused() -> None:
    catalogue = small_catalogue()
    generator = small_generator(catalogue).train()
    memory = generator.encode(catalogue, torch.tensor([[1]]))
    for call in (
        lambda: beam_search(generator, catalogue, memory, 2),
        lambda: exact_scores(generator, catalogue, memory),
    ):
        with pytest.raises(ValueError, match="eval"):
            call()
