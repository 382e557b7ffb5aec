"""A resumed single-phase run that has nothing left to train only writes and tests."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
import torch
from recbole.trainer import Trainer

from recbole_bbqrec.cli.main import main
from recbole_bbqrec.quick_start import run
from recbole_bbqrec.run_files.epochs import read_epochs
from recbole_bbqrec.run_files.names import RunFiles
from tests.support.runs import TINY, measured

OPTIONS = {
    "data_path": TINY["data_path"], "hidden_size": 16, "inner_size": 32, "n_layers": 1,
    "train_batch_size": 512, "eval_step": 1, "learning_rate": 0.02, "show_progress": False,
    "state": "ERROR",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 2},
        {"epochs": 9, "stopping_step": 0},
        {"epochs": 3, "eval_step": 2},  # the last epoch is not validated
    ],
)
def test_best_model_is_left_alone(rundir, monkeypatch, options):
    options = {**OPTIONS, **options}
    whole = run("SASRec", "Mini", overrides=options)
    files = RunFiles.at(Path(whole["files"]["model"]))
    lines, model = measured(files.epochs), files.model.read_bytes()
    assert len(lines) < 9
    files.result.unlink()
    monkeypatch.setattr(Trainer, "_train_epoch", None)  # a call would fail
    resumed = run("SASRec", "Mini", overrides={**options, "resume": "auto"})
    assert resumed["test_result"] == whole["test_result"]
    assert resumed["best_valid_result"] == whole["best_valid_result"]
    assert files.result.is_file() and files.model.read_bytes() == model
    assert measured(files.epochs) == lines


@pytest.mark.slow
def test_without_validation_the_last_model_is_written_again(rundir, monkeypatch):
    """The process may end between the last state and the model."""
    options = {**OPTIONS, "epochs": 1, "eval_step": 0}
    whole = run("SASRec", "Mini", overrides=options)
    files = RunFiles.at(Path(whole["files"]["model"]))
    before = torch.load(files.model, weights_only=True)["state_dict"]
    files.result.unlink()
    files.model.unlink()
    monkeypatch.setattr(Trainer, "_train_epoch", None)
    resumed = run("SASRec", "Mini", overrides={**options, "resume": "auto"})
    assert resumed["test_result"] == whole["test_result"]
    after = torch.load(files.model, weights_only=True)["state_dict"]
    assert all(torch.equal(before[name], after[name]) for name in before)


class Watch(logging.Handler):
    """Remembers, at each line of an epoch, how many epochs are saved."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def emit(self, record):
        told = re.search(r"epoch (\d+)( evaluating|: )", record.getMessage())
        if told:
            (path,) = Path("saved").glob("*/epochs.jsonl")
            self.seen.append((int(told[1]), len(read_epochs(path))))


@pytest.mark.slow
@pytest.mark.parametrize("eval_step", [1, 2])
def test_a_line_of_an_epoch_comes_after_its_state(rundir, eval_step):
    options = {**OPTIONS, "epochs": 3, "eval_step": eval_step, "state": "INFO"}
    watch = Watch()
    logging.getLogger().addHandler(watch)
    try:
        run("SASRec", "Mini", overrides=options)
    finally:
        logging.getLogger().removeHandler(watch)
    assert [epoch for epoch, _ in watch.seen] == ([0, 1, 2] if eval_step == 1 else [1])
    assert all(saved == epoch + 1 for epoch, saved in watch.seen)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("epoch", "told"),
    [(0, "no epoch had ended, so that nothing is saved"), (1, "saved: 1 epoch, in saved/SASRec-"),
     (2, "saved: 2 epochs, in saved/SASRec-")],
)  # fmt: skip
def test_an_interrupt_says_what_is_saved(rundir, monkeypatch, capsys, epoch, told):
    train = Trainer._train_epoch

    def interrupted(self, train_data, epoch_idx, *args, **kwargs):
        if epoch_idx == epoch:
            raise KeyboardInterrupt
        return train(self, train_data, epoch_idx, *args, **kwargs)

    monkeypatch.setattr(Trainer, "_train_epoch", interrupted)
    words = [f"--{key}={value}" for key, value in {**OPTIONS, "epochs": 3}.items()]
    assert main(["run", "--model=SASRec", "--dataset=Mini", *words]) == 130
    error = capsys.readouterr().err
    assert f"interrupted; {told}" in error and ("--resume=auto" in error) == (epoch > 0)
