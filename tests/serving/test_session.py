"""A live session gives what the Python call gives, after every event."""

from __future__ import annotations

import pytest

from recbole_bbqrec import Session, load_run
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.serving import session as module
from tests.support.runs import ROOT, finished_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(crowded, tmp_path_factory):
    options = {"data_path": str(ROOT / "dataset"), "show_progress": False}
    neighbours = finished_run(tmp_path_factory.mktemp("n"), "ItemNeighbours", options).files
    return [load_run(crowded.files.directory), load_run(neighbours.directory)]


@pytest.fixture(params=[True, False], ids=["event by event", "anew"])
def event_by_event(request, monkeypatch):
    if not request.param:  # as for networks that the first way does not know
        monkeypatch.setattr(module.OneUser, "serves", lambda weights: False)
    return request.param


def test_after_every_event_as_the_python_call(runs, event_by_event):
    events = [str(item) for item in runs[0].recommender().item_tokens[1:26]]  # more than is read
    for run in runs:
        session = Session(run, events[:1])
        for number, event in enumerate(events[1:], start=2):
            session.add(event)
            if number in (2, 20, 21, 25):
                top = session.recommend(k=7)
                expected = run.recommend(histories=[events[:number]], k=7)
                assert [one.item for one in top] == expected["item"].tolist()
                scores = [one.score for one in top]
                assert scores == pytest.approx(expected["score"].tolist(), abs=1e-5)
        assert session.history == tuple(events)
        rest = session.recommend(k=30, exclude_history=True)
        assert len(rest) == 30 and not {one.item for one in rest} & set(events)
        expected = run.recommend(histories=[events], k=30, deny=events)
        assert [one.item for one in rest] == expected["item"].tolist()


def test_allow_and_deny_as_the_python_call(runs, event_by_event):
    tokens = [str(item) for item in runs[0].recommender().item_tokens[1:60]]
    for run in runs:
        session = Session(run, tokens[:3])
        for given in ({"allow": tokens[:20], "deny": tokens[:5]}, {"deny": tokens}):
            expected = run.recommend(histories=[tokens[:3]], k=12, **given)
            found = session.recommend(k=12, **given)
            assert [one.item for one in found] == expected["item"].tolist() and len(found) == 12
        assert session.recommend(k=5, allow=[]) == []
        with pytest.raises(UserError, match="allow is 'x'; expected a list"):
            session.recommend(allow="x")
        with pytest.raises(UserError, match="give one"):
            session.recommend(allow=tokens, allowed=session.recommender.every_item())


def test_the_history_is_encoded_once_an_event(runs, event_by_event, monkeypatch):
    calls, place = [], module.OneUser if event_by_event else module
    name = "_encode" if event_by_event else "encode"
    encode = getattr(place, name)
    monkeypatch.setattr(place, name, lambda *given: calls.append(given) or encode(*given))
    session = Session(runs[0], ["i0398"])
    allowed = session.recommender.every_item()
    allowed[:200] = False
    session.recommend()
    session.recommend(k=5, exclude_history=True, allowed=allowed)
    assert len(calls) == 1
    session.add("i0395")
    session.recommend()
    assert len(calls) == 2
    if event_by_event:
        assert calls[1][2] == 1  # the place that the encoder begins at


def test_mistakes_are_named_and_leave_the_session_as_it_is(runs):
    session = Session(runs[0])
    with pytest.raises(UserError, match="no event yet"):
        session.recommend()
    session.add("i0398")
    with pytest.raises(UserError, match="Unknown item 'nothing'"):
        session.add("nothing")
    with pytest.raises(UserError, match="history is 'i0398'; expected a list"):
        Session(runs[0], "i0398")
    with pytest.raises(UserError, match="k is 0"):
        session.recommend(k=0)
    assert session.history == ("i0398",)
