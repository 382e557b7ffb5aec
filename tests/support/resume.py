"""Shared by the tests of single-phase models: a run that is killed and goes on."""

from __future__ import annotations

from typing import Any, Callable

import pytest
import torch

from recbole_bbqrec.trainer.recbole_trainer import SafeCheckpoints
from tests.support.runs import measured


class Killed(Exception):
    pass


def check_resumed_equals_uninterrupted(
    train: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three epochs leave the same metrics, weights and lines, whole or killed before the last.

    ``train(**options)`` runs three epochs in the working directory and returns their result.
    """
    whole = train()
    original, calls = SafeCheckpoints._save_resume, []

    def die_after_two_epochs(self, epochs_done, train_data):
        original(self, epochs_done, train_data)
        calls.append(epochs_done)
        if epochs_done == 2:
            raise Killed

    monkeypatch.setattr(SafeCheckpoints, "_save_resume", die_after_two_epochs)
    with pytest.raises(Killed):
        train()
    monkeypatch.setattr(SafeCheckpoints, "_save_resume", original)
    resumed = train(resume="auto")
    assert calls == [1, 2]
    assert resumed["best_valid_result"] == whole["best_valid_result"]
    assert resumed["test_result"] == whole["test_result"]
    first, second = (
        torch.load(r["files"]["model"], weights_only=True)["state_dict"] for r in (whole, resumed)
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    lines = measured(resumed["files"]["epochs"])
    assert lines == measured(whole["files"]["epochs"])
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    validated = [line["valid"]["ndcg@10"] for line in lines if "valid" in line]
    assert max(validated) == resumed["best_valid_score"]
