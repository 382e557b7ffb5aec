"""STAR and TGH against loops over the events; what they share with no other model."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch

from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.data.histories import Histories
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.model.parts.shared_users import last_items
from recbole_bbqrec.model.parts.transition_rings import TransitionGraph
from recbole_bbqrec.quick_start import build_model, prepare
from tests.support.contract import EVERY_EVENT, write_cut
from tests.support.runs import ROOT

OPTIONS = {"show_progress": False, "state": "WARNING"}


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    return write_cut(tmp_path_factory.mktemp("cut"))


def made(cut, model, **changes):
    """The model on a cut of Mini, its training sequences and the rows of the test split."""
    options = {**OPTIONS, **EVERY_EVENT, "data_path": str(cut), **changes}
    prepared = prepare(BBQRecConfig(model, "Mini", overrides=options))
    histories = Histories.from_training_data(prepared.train_data._dataset)
    ends = histories.offsets.tolist()
    sequences = [histories.items[a:b].tolist() for a, b in zip(ends, ends[1:])]
    rows = prepared.test_data._dataset.inter_feat
    network = build_model(prepared.config, prepared.train_data)
    return network, prepared.dataset, sequences, rows


def history(rows, row):
    return rows["item_id_list"][row, : int(rows["item_length"][row])].tolist()


def unit(dataset, names):
    """One row an item: the modalities' features of length 1, joined, of length 1."""
    matrix = []
    for item in range(dataset.item_num):
        parts = []
        for name in names:
            vector = dataset.item_features(name).matrix[item].double().numpy()
            parts.append(vector / max(np.linalg.norm(vector), 1e-12))
        joined = np.concatenate(parts)
        matrix.append(joined / max(np.linalg.norm(joined), 1e-12))
    return np.array(matrix)


@pytest.mark.parametrize(
    "changes",
    [
        {"modalities": ["text"]},
        {"text_weight": 0.2, "neighbour_decay": 0.4, "recent_items": 50},
        {"text_weight": 0, "modalities": [], "recent_items": 1},
    ],
)
def test_star_ranks_by_its_formula(cut, changes):
    network, dataset, sequences, rows = made(cut, "STAR", **changes)
    settings = {"text_weight": 0.5, "neighbour_decay": 0.7, "recent_items": 3, **changes}
    share, decay = settings["text_weight"], settings["neighbour_decay"]
    names = settings.get("modalities", ["text", "image"])
    vectors = unit(dataset, names) if names else np.zeros((dataset.item_num, 1))
    users = [{u for u, s in enumerate(sequences) if i in s} for i in range(dataset.item_num)]
    found = network.full_sort_predict(rows)
    assert torch.isneginf(found[:, 0]).all()
    for row in range(0, len(rows), 9):
        past = history(rows, row)
        expected = np.zeros(dataset.item_num)
        for item in range(1, dataset.item_num):
            for ago, j in enumerate(reversed(past[-settings["recent_items"] :])):
                both = len(users[item] & users[j])
                norm = math.sqrt(max(len(users[item]), 1) * max(len(users[j]), 1))
                similar = share * vectors[item] @ vectors[j] + (1 - share) * both / norm
                expected[item] += decay**ago * similar
        unseen = [i for i in range(1, dataset.item_num) if i not in past]
        np.testing.assert_allclose(found[row, unseen], expected[unseen], rtol=1e-4, atol=1e-5)
        assert found[row, past].max() < found[row, unseen].min()


def ranking_of_tgh(sequences, vectors, last, places, weight, n_items):
    """The whole ranking with the items' values, by loops: rings by definition, then places."""
    pairs = Counter((a, b) for s in sequences for a, b in zip(s, s[1:]) if a != b)
    follows = {a: {b for x, b in pairs if x == a} for a in range(n_items)}
    rings, seen, edge = [], {last}, {last}
    for _ in places:
        edge = {b for a in edge for b in follows[a]} - seen
        seen |= edge
        rings.append(edge)
    largest = max((math.log1p(pairs[last, b]) for b in follows[last]), default=1)
    value = {
        i: float(vectors[i] @ vectors[last]) + weight * math.log1p(pairs[last, i]) / largest
        for i in range(1, n_items)
    }
    ordered = [sorted(ring, key=lambda i: -value[i]) for ring in rings]
    first = [i for ring, count in zip(ordered, places) for i in ring[:count]]
    left = [i for ring, count in zip(ordered, places) for i in ring[count:]]
    others = sorted(set(range(1, n_items)) - seen, key=lambda i: -value[i])
    return [*first, *left, *others, last], value


@pytest.mark.parametrize(
    "changes",
    [
        {"modalities": ["text"]},
        {"modalities": ["image"], "ring_places": [2, 1], "transition_weight": 2.0},
        {"ring_places": [300], "transition_weight": 0.0},
    ],
)
def test_tgh_ranks_by_its_rings(cut, changes):
    network, dataset, sequences, rows = made(cut, "TGH", **changes)
    settings = {"modalities": ["text", "image"], "ring_places": [7, 2, 1], **changes}
    vectors = unit(dataset, settings["modalities"])
    found = network.full_sort_predict(rows)
    assert torch.isneginf(found[:, 0]).all()
    for row in range(0, len(rows), 7):
        expected, value = ranking_of_tgh(
            sequences, vectors, history(rows, row)[-1], settings["ring_places"],
            settings.get("transition_weight", 0.5), dataset.item_num,
        )  # fmt: skip
        ranked = found[row].argsort(descending=True)[:-1].tolist()
        assert sorted(ranked) == sorted(expected) and ranked[-1] == expected[-1]
        # items of equal value, such as those without features, may change places
        levels = [[value[i] for i in order[:-1]] for order in (ranked, expected)]
        np.testing.assert_allclose(*levels, atol=1e-5)


def test_a_repeated_item_is_no_transition():
    items = torch.tensor([1, 1, 2, 3, 1, 2])
    histories = Histories(items, torch.tensor([0, 4, 6]), torch.tensor([1, 2]))
    graph = TransitionGraph.of(histories, 5)
    assert graph.rings(np.array([1, 4]), 2).tolist() == [[3, 3, 1, 2, 3], [3] * 5]
    weights = graph.weights_from(np.array([1, 2]))
    assert weights.tolist() == [[0, 0, 1, 0, 0], [0, 0, 0, 1, 0]]


def test_last_items_of_short_and_long_histories():
    items = torch.tensor([[4, 0, 0], [4, 5, 6]])
    found, lengths = last_items(items, torch.tensor([1, 3]), 2)
    assert found.tolist() == [[4, 0], [5, 6]] and lengths.tolist() == [1, 2]
    assert last_items(items, torch.tensor([1, 3]), 9)[0].tolist() == items.tolist()


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        ("STAR", {"modalities": []}, "`modalities` is .*--text_weight=0"),
        ("STAR", {"recent_items": 0}, "`recent_items` is 0; expected an integer of at least 1"),
        ("TGH", {"modalities": []}, "TGH orders items by their text"),
        ("TGH", {"ring_places": []}, "`ring_places` is .*; expected 1 to 5 numbers"),
        ("TGH", {"ring_places": [7, 0]}, "`ring_places` is .7, 0"),
        ("TGH", {"benchmark_filename": ["a", "b", "c"]}, "TGH needs whole user sequences"),
    ],
)
def test_options_that_leave_nothing_to_rank_by(model, changes, message):
    with pytest.raises(UserError, match=message):
        overrides = {**OPTIONS, "data_path": str(ROOT / "dataset"), **changes}
        BBQRecConfig(model, "Mini", overrides=overrides)
