"""A loss that is NaN: the batch is kept, and repeated it has the loss that it had."""

from __future__ import annotations

import re

import pytest
import torch

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.experiment.replay import replay
from recbole_bbqrec.quick_start import run
from recbole_bbqrec.run_files.names import RunFiles
from recbole_bbqrec.run_files.nan_batch import NanBatch
from recbole_bbqrec.trainer.phases import nan_check
from tests.support.runs import TINY

SMALL = {"data_path": TINY["data_path"], "epochs": 2, "hidden_size": 16, "inner_size": 16,
         "train_batch_size": 512, "show_progress": False, "state": "ERROR"}  # fmt: skip
CASES = {
    "tokenize": ("BBQRec", TINY, 2), "generate": ("TIGER", TINY, 3),
    "history": ("ESASRec", SMALL, 2), "recbole": ("SASRec", SMALL, 2),
}  # fmt: skip


def nan_at(monkeypatch, phase, number):
    """Make the check take the loss of a step for NaN; return the list of that loss."""
    losses, seen, before = [], [], nan_check.NanCheck.after

    def after(self, loss, batch, network, epoch):
        seen.append(self._phase)
        if seen.count(phase) == number:
            losses.append(float(loss.detach()))
            loss = loss * torch.nan
        return before(self, loss, batch, network, epoch)

    monkeypatch.setattr(nan_check.NanCheck, "after", after)
    return losses


@pytest.mark.slow
@pytest.mark.parametrize("name", list(CASES))
def test_a_kept_batch_has_its_loss_again(name, rundir, monkeypatch):
    model, options, number = CASES[name]
    phase = name if name in ("tokenize", "generate") else "train"
    losses = nan_at(monkeypatch, phase, number)
    with pytest.raises(UserError, match="loss.* is nan.*nan_batch.safetensors") as error:
        run(model, "Mini", overrides=options)
    path = re.search(r"(\S+nan_batch.safetensors)", str(error.value))[1]
    terms = replay(path)
    assert [terms["total" if name == "tokenize" else "loss"]] == losses
    assert replay(path) == terms


@pytest.mark.slow
def test_divergence_is_found_in_the_step(rundir):
    with pytest.raises(UserError, match="`learning_rate` is 1e.30: the training loss is nan"):
        run("ESASRec", "Mini", overrides={**SMALL, "learning_rate": 1e30})
    (files,) = RunFiles.all_in("saved")
    assert str(torch.tensor(replay(files.nan_batch)["loss"])) == "tensor(nan)"


def test_a_file_of_another_kind_is_one_error(tmp_path):
    path = tmp_path / "nan_batch.safetensors"
    path.write_bytes(b"no tensors")
    with pytest.raises(UserError, match="nan_batch.safetensors cannot be read"):
        NanBatch.load(path)
