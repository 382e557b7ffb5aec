"""The map of the items: similar vectors lie together, and frequent codes have colours."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch

from recbole_bbqrec.experiment.report_card.codes import Codes
from recbole_bbqrec.experiment.report_card.item_map import COLOURED, item_map

GROUPS, EACH = 3, 30


def model_of(vectors):
    rows = torch.cat([torch.zeros(1, vectors.shape[1]), vectors])
    return SimpleNamespace(catalogue=SimpleNamespace(vectors=rows))


def codes_of(first):
    rows = torch.cat([torch.zeros(1, dtype=torch.int64), first])
    return Codes(rows.view(-1, 1, 1), None, 64, ("text",), ("level 1",))


def test_groups_lie_apart_and_have_their_codes_colour():
    generator = torch.Generator().manual_seed(1)
    group = torch.arange(GROUPS).repeat_interleave(EACH)
    vectors = 10 * torch.eye(GROUPS, 8)[group]
    vectors = vectors + torch.randn(len(group), 8, generator=generator)
    found = item_map(model_of(vectors), codes_of(group + 5), seed=3)
    places = np.array(found["places"])
    assert places.shape == (GROUPS * EACH, 2) and places.min() == 0 and places.max() == 1
    centres = np.stack([places[group == g].mean(0) for g in range(GROUPS)])
    within = max(np.linalg.norm(places[group == g] - centres[g], axis=1).mean() for g in range(3))
    between = min(np.linalg.norm(centres[a] - centres[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
    assert between > 2 * within
    colours = found["first_codes"]["text"]
    assert all(len(set(np.array(colours)[group == g])) == 1 for g in range(GROUPS))
    assert found == item_map(model_of(vectors), codes_of(group + 5), seed=3)


def test_rare_codes_are_grey():
    first = torch.cat([torch.arange(COLOURED).repeat(5), torch.arange(20, 30)])
    vectors = torch.randn(len(first), 4, generator=torch.Generator().manual_seed(2))
    colours = item_map(model_of(vectors), codes_of(first), seed=0)["first_codes"]["text"]
    assert colours[-10:] == [-1] * 10 and set(colours) == {-1, *range(COLOURED)}


def test_without_vectors_or_codes_there_is_no_map():
    vectors = torch.randn(20, 4)
    assert item_map(SimpleNamespace(), codes_of(torch.arange(20)), seed=0) is None
    assert item_map(model_of(vectors), None, seed=0) is None
