"""One user, event by event, against many users side by side."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from recbole_bbqrec.generator.inference.compiled_weights import compiled
from recbole_bbqrec.generator.inference.one_user import OneUser
from recbole_bbqrec.generator.inference.ranking import rank
from recbole_bbqrec.generator.items.catalogue import Catalogue
from recbole_bbqrec.generator.items.neighbour_bonus import Neighbours
from tests.support.generator import small_catalogue, small_generator

DEFAULT = {
    "history_tokens": "item",
    "generation_loss": "item",
    "item_head": True,
    "item_embedding": True,
    "repeat_logit": True,
    "n_items": 30,
}
OPTIONS: list[dict[str, Any]] = [
    {},
    {"similarity": False, "decoder_layers": 1},
    {"norm_positions": True, "item_embedding": False, "repeat_logit": False},
    {"decoder_start": "token", "feature_dim": 4},
]


def neighbours(scale: float) -> Neighbours:
    """Three items beside each item, also beside items that are left out."""
    near = torch.randint(1, 30, (30, 3)).flatten()
    pointer = torch.arange(31) * 3
    return Neighbours(pointer, near, torch.rand(90) * scale, 0.6)


def build(levels: int = 3, scale: float = 2.0, **options: Any) -> tuple[Any, Catalogue]:
    torch.manual_seed(3)
    plain = small_catalogue(levels=levels, feature_dim=options.get("feature_dim", 0))
    items = torch.arange(1, 28)  # some items are only read
    catalogue = Catalogue.build(
        plain.codes, plain.vectors, 3, items, plain.features, neighbours(scale)
    )
    return small_generator(catalogue, **{**DEFAULT, **options}), catalogue


def same(
    live: OneUser, parts: Any, history: list[int], beams: int, allowed: Tensor | None = None
) -> None:
    """Compare lists, of which places without an allowed item mean nothing."""
    rows = torch.tensor([history])
    ranked = rank(*parts, rows, beams, torch.float32, allowed=allowed)  # without autocast
    wanted, scores = (part[0] for part in ranked)
    mask = None if allowed is None else allowed.numpy()
    ids, found = (torch.from_numpy(part) for part in live.best(beams, beams, mask))
    torch.testing.assert_close(found, scores, atol=1e-10, rtol=0)
    real = scores > -torch.inf
    assert ids[real].tolist() == wanted[real].tolist()


@pytest.mark.parametrize("levels, scale", [(3, 2.0), (1, 2.0), (4, 2.0), (3, 5000.0)])
@pytest.mark.parametrize("options", OPTIONS)
def test_every_event_as_many_users_at_once(
    options: dict[str, Any], levels: int, scale: float
) -> None:
    parts = build(levels, scale, **options)
    live = OneUser(*parts, compiled(parts[0]))
    events = torch.randint(1, 30, (9,)).tolist()
    allowed = torch.rand(30) < 0.4
    for number in range(1, 10):
        history = events[:number][-6:]  # the window moves from the seventh event on
        assert live.read(history) == (1 if number <= 6 else 6)
        assert live.read(history) == 0
        same(live, parts, history, beams=4)
        same(live, parts, history, beams=27)
        same(live, parts, history, beams=8, allowed=allowed)


def test_a_history_that_begins_otherwise_is_read_anew() -> None:
    parts = build()
    live = OneUser(*parts, compiled(parts[0]))
    for history, read in [([4, 5, 6], 3), ([4, 5, 6, 7, 8], 2), ([4, 5], 2), ([9, 5, 1], 3)]:
        assert live.read(history) == read
        same(live, parts, history, beams=5)


@pytest.mark.parametrize(
    "options",
    [
        {"history_tokens": "level"},
        {"history_encoding": "bidirectional"},
        {"item_head_ranking": "shortlist"},
        {"generation_loss": "code", "item_head": False, "repeat_logit": False},
    ],
)
def test_other_networks_are_not_served(options: dict[str, Any]) -> None:
    generator, _ = build(**options)
    assert not OneUser.serves(compiled(generator))


def test_bfloat16_is_not_served() -> None:
    generator, _ = build()
    generator.float()
    assert OneUser.serves(compiled(generator))
    with torch.autocast("cpu", torch.bfloat16):
        assert not OneUser.serves(compiled(generator))
