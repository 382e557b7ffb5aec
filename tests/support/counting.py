"""Metrics that count in the training data, found again from a saved model on Mini."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from recbole_bbqrec.quick_start import load_data_and_model


def check_counted(found: Mapping[str, float], model_file: str | Path) -> None:
    """``found`` has the coverage and popularity of the model's three best items a test user."""
    _, network, _, train_data, _, test_data = load_data_and_model(model_file)
    network.eval()
    with torch.no_grad():
        scores = network.full_sort_predict(test_data._dataset.inter_feat).view(617, -1)
    scores[:, 0] = -torch.inf
    top = scores.topk(3, dim=1).indices  # [617, 3]
    counts = train_data._dataset.item_counter
    popularity = sum(counts[item] for item in top.flatten().tolist()) / top.numel()
    assert found["itemcoverage@3"] == pytest.approx(len(top.unique()) / 406, abs=1e-6)
    assert found["averagepopularity@3"] == pytest.approx(popularity, abs=1e-5)
