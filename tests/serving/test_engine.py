"""Filters of requests are made once, and the oldest are forgotten."""

from __future__ import annotations

import pytest
import torch

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.serving import engine
from recbole_bbqrec.serving.engine import Engine, Question


class Vocabulary:
    n_items = 6
    item_ids = {token: number for number, token in enumerate("abcde", start=1)}

    def every_item(self) -> torch.Tensor:
        return torch.arange(6) > 0


@pytest.fixture
def filters(monkeypatch):
    monkeypatch.setattr(engine, "_FILTERS", 2)
    bare = Engine.__new__(Engine)
    bare.recommender, bare.items = Vocabulary(), None
    bare._masks, bare._lock = engine.OrderedDict(), engine.threading.Lock()
    return bare


def test_what_a_question_allows(filters):
    assert filters.mask(Question(k=1)) is None
    allowed = filters.mask(Question(k=1, allow=("a", "c", "nothing"), deny=("c",)))
    assert allowed.tolist() == [False, True, False, False, False, False]
    denied = filters.mask(Question(k=1, deny=("a",)))
    assert denied.tolist() == [False, False, True, True, True, True]
    with pytest.raises(UserError, match="Widen them"):
        filters.mask(Question(k=1, allow=()))


def test_the_last_ones_used_are_kept(filters):
    first, second, third = (Question(k=1, deny=(token,)) for token in "abc")
    mask = filters.mask(first)
    filters.mask(second)
    assert filters.mask(first) is mask
    filters.mask(third)  # the second goes
    assert filters.mask(first) is mask and len(filters._masks) == 2
