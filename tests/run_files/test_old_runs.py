"""Runs that an earlier version left still load, evaluate and continue.

``old_runs`` holds two tiny runs on Mini, as they were before the package got its present rooms;
that version saved the state of a single-phase run at the start of an epoch.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.quick_start import load_data_and_model, run
from recbole_bbqrec.run_files.finished_run import FinishedRun
from recbole_bbqrec.trainer.registry import get_trainer_class
from tests.support.runs import TINY

OLD = Path(__file__).parent / "old_runs"
DATA = {"data_path": TINY["data_path"]}
ROUNDING = 2e-3  # another machine may rank a few users differently


@pytest.fixture
def saved(rundir):
    shutil.copytree(OLD, rundir / "saved")
    return rundir / "saved"


@pytest.mark.parametrize("model", ["ESASRec", "BBQRec"])
def test_an_old_run_has_its_metrics_again(saved, model):
    finished = FinishedRun.at(saved / f"{model}-old")
    assert [line["epoch"] for line in finished.epochs][-2:] == [0, 1]
    config, network, _, train_data, _, test_data = load_data_and_model(finished.files.model, DATA)
    trainer = get_trainer_class(model)(config, network)
    trainer.eval_collector.data_collect(train_data)
    metrics = trainer.evaluate(test_data, load_best_model=False)
    assert dict(metrics) == pytest.approx(finished.result["test_result"], abs=ROUNDING)
    assert finished.result["test_result"]["recall@10"] > 0.04


def test_an_old_interrupted_run_continues(saved):
    """The last state is that before the second of two epochs."""
    finished = FinishedRun.at(saved / "ESASRec-old")
    finished.files.result.unlink()
    finished.files.model.unlink()
    resumed = run(overrides={**DATA, "resume": str(finished.files.directory)})
    assert resumed["test_result"] == pytest.approx(finished.result["test_result"], abs=ROUNDING)
    again = FinishedRun.at(finished.files.directory)
    for key in ("epoch", "learning_rate"):
        assert [line[key] for line in again.epochs] == [line[key] for line in finished.epochs]
    for new, old in zip(again.epochs, finished.epochs):
        assert new["terms"] == pytest.approx(old["terms"], rel=1e-3)


def test_other_options_than_an_old_run_had_are_refused(saved):
    with pytest.raises(UserError, match="`learning_rate` is 0.5; the run in .* with 0.02"):
        run(overrides={**DATA, "resume": str(saved / "ESASRec-old"), "learning_rate": 0.5})
