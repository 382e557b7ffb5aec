"""Every form of the generator hears which item of a history is the last.

The task: the next item is a function of the last one, and nothing else of the history helps.
"""

from __future__ import annotations

import itertools

import pytest
import torch

from recbole_bbqrec.generator.inference.ranking import rank
from recbole_bbqrec.generator.items.catalogue import Catalogue
from recbole_bbqrec.generator.network.seq2seq import Generator
from recbole_bbqrec.generator.settings import GeneratorSettings

ITEMS, LONGEST, TARGETS = 8, 8, 64
FORMS = list(
    itertools.product(("causal", "bidirectional"), ("history", "token"), ("item", "level"))
)


def catalogue() -> Catalogue:
    """Items told apart by the first of their two codes."""
    codes = torch.zeros(1 + ITEMS, 2, 1, dtype=torch.int64)
    codes[1:, 0, 0] = torch.arange(ITEMS)
    return Catalogue.build(codes, torch.zeros(1 + ITEMS, 1), ITEMS)


def rows(targets: int, causal: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Histories of random lengths, and the items after them: int64 [B, T] each."""
    n = targets // (LONGEST // 2) if causal else targets
    items = torch.randint(1, 1 + ITEMS, (n, LONGEST))
    length = torch.randint(LONGEST // 2, 1 + LONGEST, (n, 1))
    place = torch.arange(LONGEST)
    items = items * (place < length)
    told = place < length if causal else place == length - 1
    return items, (1 + (items + 2) % ITEMS) * told


def recall(encoding: str, start: str, tokens: str, positions: str = "auto", steps: int = 90):
    """Train briefly; return the share of new histories whose first place is right."""
    torch.manual_seed(1)
    net = Generator(
        GeneratorSettings(
            n_signals=1, similarity=False, levels=2, codebook_size=ITEMS, code_dim=32,
            max_history=LONGEST, hidden_size=32, n_heads=2, encoder_layers=1, decoder_layers=1,
            inner_size=64, dropout=0.0, history_encoding=encoding, history_tokens=tokens,
            history_positions=positions, generation_loss="code", decoder_start=start,
            item_embedding=False, item_head=False, repeat_logit=False, initializer_range=0.1,
        )
    )  # fmt: skip
    items = catalogue()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        net.loss(items, *rows(TARGETS, encoding == "causal"))[0].backward()
        optimizer.step()
    histories, targets = rows(200, causal=False)
    best = rank(net.eval(), items, histories, 3, torch.float32)[0][:, 0]
    return float((best == targets.amax(1)).float().mean())


@pytest.mark.slow
@pytest.mark.parametrize(("encoding", "start", "tokens"), FORMS)
def test_the_last_item_is_heard(encoding: str, start: str, tokens: str) -> None:
    assert recall(encoding, start, tokens) > 0.9


@pytest.mark.slow
def test_positions_from_the_first_item_hide_the_last() -> None:
    """The last item then has another place in every row; many more steps learn the task anyway."""
    form = ("bidirectional", "token", "item")
    assert recall(*form, steps=45) > 0.9 > 0.7 > recall(*form, positions="first", steps=45)


def test_an_item_has_the_same_position_however_long_the_history_before_it() -> None:
    """The encoder's input of the last item, made by hand, whatever stands before it."""
    config = GeneratorSettings(
        n_signals=1, similarity=False, levels=2, codebook_size=ITEMS, code_dim=4, max_history=5,
        hidden_size=4, n_heads=1, encoder_layers=1, dropout=0.0, item_embedding=False,
        item_head=False, repeat_logit=False, history_encoding="bidirectional",
    )  # fmt: skip
    encoder = Generator(config).encoder
    grid = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]]).bool()
    found = encoder.position.of(grid)
    for row, length in enumerate([4, 2, 1]):
        wanted = encoder.position.weight[:length].flip(0)
        assert torch.equal(found[row, :length], wanted)


@pytest.mark.parametrize("before", [False, True])
def test_positions_are_added_before_or_after_the_norm(before: bool) -> None:
    torch.manual_seed(0)
    config = GeneratorSettings(
        n_signals=1, similarity=False, levels=2, codebook_size=ITEMS, code_dim=4, max_history=5,
        hidden_size=4, n_heads=1, encoder_layers=1, dropout=0.0, item_embedding=False,
        item_head=False, repeat_logit=False, norm_positions=before, initializer_range=1.0,
    )  # fmt: skip
    encoder, seen = Generator(config).encoder, []
    encoder.layers[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    items = torch.tensor([[3, 5]])
    encoder(catalogue(), items)
    tokens = encoder.tokens.project().embed(catalogue().codes[items[0]]).sum(1)
    tokens = tokens + encoder.level
    position = encoder.position.weight[:2]
    x = tokens + position if before else tokens
    x = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(seen[0][:, 0], x if before else x + position)
