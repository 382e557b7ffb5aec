"""Approximate neighbours against the exact ones."""

from __future__ import annotations

import logging
import re
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.model.parts import approximate_search
from recbole_bbqrec.model.parts.approximate_search import candidates, use_index
from recbole_bbqrec.model.parts.neighbour_graph import alike

N_ITEMS = 2000
ROUNDING = 5e-4  # of values that are cosines, at 4 decimals, over their mean


@pytest.fixture
def features() -> torch.Tensor:
    """Items around 50 centres; some without features."""
    torch.manual_seed(0)
    centres = torch.randn(50, 16)
    vectors = centres[torch.randint(50, (N_ITEMS,))] + 0.7 * torch.randn(N_ITEMS, 16)
    vectors[:3] = 0
    return vectors


@pytest.mark.slow
def test_most_neighbours_are_found(features: torch.Tensor, caplog) -> None:
    caplog.set_level(logging.INFO)
    exact, found = alike([features]).toarray(), alike([features], "approximate").toarray()
    share = ((exact > 0) & (found > 0)).sum() / (exact > 0).sum()
    searched, lists = map(int, re.findall(r"(\d+) of (\d+) lists searched", caplog.text)[0])
    assert share > 0.95 and searched < lists
    assert not found[:3].any() and not found[:, :3].any() and not found.diagonal().any()
    same = ((exact > 0) == (found > 0)).all(1)
    assert same.sum() > N_ITEMS / 4
    np.testing.assert_allclose(found[same], exact[same], atol=ROUNDING)


def test_a_search_of_all_lists_is_exact(features: torch.Tensor, monkeypatch) -> None:
    monkeypatch.setattr(approximate_search, "RECALL", 2.0)  # never reached
    exact, found = alike([features]).toarray(), alike([features], "approximate").toarray()
    differ = (exact > 0) != (found > 0)
    assert differ.sum() <= 2  # at the edge, by rounding
    np.testing.assert_allclose(found[~differ], exact[~differ], atol=ROUNDING)


def test_candidates_of_lonely_items_are_themselves(monkeypatch) -> None:
    monkeypatch.setattr(approximate_search, "_TRAINED_ON", 2)
    monkeypatch.setattr(approximate_search, "_FIRST_PROBES", 1)
    monkeypatch.setattr(approximate_search, "RECALL", 0.0)
    unit = F.normalize(torch.eye(8), dim=1)
    found = candidates(unit, 6, 5)
    assert found.shape == (8, 6) and int(found.min()) >= 0
    assert (found == torch.arange(8).unsqueeze(1)).any(1).all()


def test_what_is_searched_how(monkeypatch, caplog) -> None:
    assert not use_index("exact", 10**8) and not use_index("auto", 99_999)
    assert use_index("auto", 100_000) and use_index("approximate", 10)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UserError, match=r"needs faiss; install it \(pip install"):
        use_index("approximate", 10)
    assert not use_index("auto", 100_000) and "100,000 items are searched exactly" in caplog.text
