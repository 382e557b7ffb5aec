"""Curves on Weights & Biases: both phases, through RecBole's logger to a stand-in."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.quick_start import run
from tests.support.runs import TINY

WANDB = """
import json, os
run = None
class Error(Exception):
    pass
Error.__module__ = "wandb.errors"
class Run:
    summary = {}
def init(project=None, config=None):
    global run
    if os.environ.get("NO_KEY"):
        raise Error("api_key not configured (no-tty)")
    run = Run()
logged, axes = [], {}
def log(values, commit=True):
    logged.append(json.loads(json.dumps(values, allow_nan=False)))
def define_metric(name, step_metric=None):
    axes[name] = step_metric
"""
FEW = {**TINY, "tokenizer_epochs": 2, "epochs": 2, "eval_step": 2, "log_wandb": True}


@pytest.fixture
def wandb(tmp_path, monkeypatch):
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "wandb.py").write_text(WANDB)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    yield importlib.import_module("wandb")
    del sys.modules["wandb"]


@pytest.mark.slow
def test_curves_of_both_phases(rundir, wandb):
    result = run("TIGER", "Mini", overrides=FEW)
    lines = [json.loads(x) for x in Path(result["files"]["epochs"]).read_text().splitlines()]
    drawn = {}  # curve -> points
    for values in wandb.logged:
        for name, value in values.items():
            axis = wandb.axes.get(f"{name.partition('/')[0]}/*") if "/" in name else None
            if axis:
                drawn.setdefault(name, []).append((values[axis], value))
    for phase, loss in (("tokenize", "total"), ("generate", "loss")):
        assert drawn[f"{phase}/{loss}"] == [
            (line["epoch"], line["terms"][loss]) for line in lines if line["phase"] == phase
        ]
    last = lines[-1]["valid"]
    assert drawn["generate/ndcg@10"] == [(1, last["ndcg@10"])]
    assert drawn["valid/ndcg@10"] == [(0, last["ndcg@10"])]  # where those of RecBole's models are
    assert [step for step, _ in drawn["train/train_loss"]] == [0, 1]
    assert wandb.run.summary["eval/ndcg@10"] == result["test_result"]["ndcg@10"]


def test_wandb_that_does_not_start_is_one_error(rundir, wandb, monkeypatch):
    monkeypatch.setenv("NO_KEY", "1")
    with pytest.raises(UserError, match="`log_wandb`.*api_key not configured.*WANDB_MODE=offline"):
        run("BBQRec", "Mini", overrides=FEW)
