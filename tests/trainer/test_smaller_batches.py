"""Memory that runs out in evaluation: fewer users at once, the same metrics."""

from __future__ import annotations

import logging

import pytest
import torch

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.quick_start import load_run, run
from recbole_bbqrec.trainer import recbole_trainer
from recbole_bbqrec.trainer.two_phase_trainer import TwoPhaseTrainer
from tests.support.runs import TINY

CPU = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory: you "
    "tried to allocate 99 bytes. Error code 12 (Cannot allocate memory)"
)
GPU = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
SMALL = {"data_path": TINY["data_path"], "epochs": 1, "hidden_size": 16, "inner_size": 16,
         "n_layers": 1, "train_batch_size": 512, "show_progress": False,
         "state": "WARNING"}  # fmt: skip


def little_memory(monkeypatch, trainer, room, error, after=0):
    """No more than ``room`` users fit at once, from the batch after ``after`` on."""
    original, calls = trainer._full_sort_batch_eval, []

    def limited(self, batched_data):
        calls.append(len(batched_data[0]))
        if calls[-1] > room and len(calls) > after:
            raise error
        return original(self, batched_data)

    monkeypatch.setattr(trainer, "_full_sort_batch_eval", limited)
    return calls


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "options", "trainer", "error"),
    [
        ("SASRec", SMALL, recbole_trainer.SafeCheckpoints, CPU),
        ("TIGER", TINY, TwoPhaseTrainer, GPU),
    ],
)
def test_same_metrics_with_smaller_batches(
    rundir, monkeypatch, caplog, model, options, trainer, error
):
    options = {**options, "metrics": ["NDCG", "Recall", "ItemCoverage"]}
    plain = run(model, "Mini", overrides={**options, "eval_batch_size": 300})
    calls = little_memory(monkeypatch, trainer, room=100, error=error, after=1)
    with caplog.at_level(logging.WARNING):
        small = run(model, "Mini", overrides={**options, "eval_batch_size": 300})
    for name in ("best_valid_result", "test_result", "by_target"):
        assert small[name] == plain[name]
    assert {300, 150, 75} <= set(calls)
    assert "begins anew with 75" in caplog.text and "--eval_batch_size=75" in caplog.text


@pytest.mark.slow
def test_one_user_that_does_not_fit_is_one_error(monkeypatch, sasrec):
    trainer, data = sasrec
    little_memory(monkeypatch, recbole_trainer.SafeCheckpoints, room=0, error=CPU)
    with pytest.raises(UserError, match="one user at a time needs more memory"):
        trainer.evaluate(data, load_best_model=False)


@pytest.mark.slow
def test_other_errors_pass(monkeypatch, sasrec):
    trainer, data = sasrec
    little_memory(monkeypatch, recbole_trainer.SafeCheckpoints, 0, RuntimeError("shape mismatch"))
    with pytest.raises(RuntimeError, match="shape mismatch"):
        trainer.evaluate(data, load_best_model=False)


@pytest.fixture
def sasrec(rundir):
    result = run("SASRec", "Mini", overrides={**SMALL, "eval_step": 0})
    config, model, _, _, _, test_data = load_run(result["files"]["model"])
    return recbole_trainer.SafeCheckpoints(config, model), test_data
