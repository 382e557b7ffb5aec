"""Filters of requests are made once, and the oldest are forgotten."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.serving import engine
from recbole_bbqrec.serving.engine import Engine, Question


class Vocabulary:
    n_items = 6
    item_ids = {token: number for number, token in enumerate("abcde", start=1)}
    item_tokens, user_ids, model = ["[PAD]", *"abcde"], {"u": 1}, None

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


def test_unknown_items_of_filters_are_named(filters):
    asked = Question(k=1, history=("a", "x"), allow=("b", "y"), deny=("y", "z"))
    kept, unknown = filters.check(asked)
    assert kept.history == ("a",) and unknown == ["x", "y", "z"]
    assert filters.check(Question(k=1, user="u", deny=("z",)))[1] == ["z"]
    with pytest.raises(UserError, match=r"No item of `allow` is known \(y\)"):
        filters.check(Question(k=1, user="u", allow=("y",)))


def test_items_without_a_row_are_warned_of_at_the_start(monkeypatch, tmp_path, caplog):
    known = Vocabulary()
    known.config = {"data_path": str(tmp_path), "dataset": "D"}
    found = SimpleNamespace(files=SimpleNamespace(directory=tmp_path))
    monkeypatch.setattr(engine, "FinishedRun", SimpleNamespace(at=lambda path: found))
    monkeypatch.setattr(engine, "load_run", lambda path: SimpleNamespace(recommender=lambda: known))
    Engine(tmp_path)  # without any table
    (tmp_path / "D.item").write_text("shelf:token\n1\n")
    Engine(tmp_path)  # with one that has no items
    assert not caplog.messages
    (tmp_path / "items.csv").write_text("item_id,price\na,1\nb,2\nc,3\n")
    Engine(tmp_path, tmp_path / "items.csv")
    assert "2 items of the run have no row in" in caplog.text and "(d, e)" in caplog.text
    with pytest.raises(UserError, match="no.csv not found"):
        Engine(tmp_path, tmp_path / "no.csv")
