"""A run belongs to one process at a time, and to the data that it was started on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.quick_start import load_data_and_model, run
from recbole_bbqrec.run_files.names import RunFiles
from tests.support.runs import ROOT

SASREC = {
    "hidden_size": 16, "inner_size": 16, "n_layers": 1, "n_heads": 1, "train_batch_size": 512,
    "epochs": 2, "show_progress": False, "state": "WARNING",
}  # fmt: skip


@pytest.fixture
def own_data(rundir):
    """A copy of the small data set that a test may change."""
    shutil.copytree(ROOT / "dataset" / "Mini", rundir / "data" / "Mini")
    return rundir / "data"


def swap_two_items(data: Path) -> None:
    """Other events; the number of users and items stays, and with it the shape of every weight."""
    path = data / "Mini" / "Mini.inter"
    events = path.read_text()
    swapped = events.replace("\ti0398\t", "\t?\t").replace("\ti0395\t", "\ti0398\t")
    path.write_text(swapped.replace("\t?\t", "\ti0395\t"))
    assert path.read_text() != events


def turn_text_around(data: Path) -> None:
    path = data / "Mini" / "Mini.text.items.txt"
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    (data / "Mini" / "Mini.features.yaml").unlink()  # whose checksums would tell already


def unfinished(result: dict) -> RunFiles:
    """The run of ``result`` as if it had been killed before its result was written."""
    files = RunFiles(Path(result["files"]["resume"]).parent)
    files.result.unlink()
    return files


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "change", "told"),
    [
        ("SASRec", swap_two_items, "split"),
        ("BBQRec", swap_two_items, "split"),
        ("BBQRec", turn_text_around, "text features"),
        ("ESASRec", swap_two_items, "split"),
    ],
)
def test_other_data_are_refused(own_data, tiny, model, change, told):
    options = {**(tiny if model == "BBQRec" else SASREC), "data_path": str(own_data)}
    if model == "ESASRec":
        options = {k: options[k] for k in ("data_path", "show_progress", "state")}
        options.update(hidden_size=16, inner_size=16, n_heads=1, epochs=1)
    options["save_data"] = False  # else the run would be loaded with its own data
    files = unfinished(run(model, "Mini", overrides=options))
    change(own_data)
    for where in ("auto", str(files.directory)):
        with pytest.raises(UserError, match=told):
            run(model, "Mini", overrides={**options, "resume": where})
    with pytest.raises(UserError, match=told):
        load_data_and_model(files.model)
    assert not files.result.exists()


@pytest.mark.slow
def test_a_run_is_one_process_at_a_time(own_data):
    options = {**SASREC, "data_path": str(own_data)}
    first = unfinished(run("SASRec", "Mini", overrides=options))
    before = first.model.read_bytes()
    with first.claim():
        with pytest.raises(UserError, match="Another process"):
            run("SASRec", "Mini", overrides={**options, "resume": str(first.directory)})
        other = run("SASRec", "Mini", overrides={**options, "resume": "auto"})
    assert Path(other["files"]["result"]).parent != first.directory
    assert first.model.read_bytes() == before and not first.result.exists()
    again = run("SASRec", "Mini", overrides={**options, "resume": "auto"})
    assert Path(again["files"]["result"]).parent == first.directory
    assert again["test_result"] == other["test_result"]


@pytest.mark.slow
def test_a_run_is_claimed_while_it_lasts(own_data, monkeypatch):
    from recbole_bbqrec.trainer.recbole_trainer import SafeCheckpoints

    claimed = []
    save = SafeCheckpoints._save_resume

    def watched(self, epochs_done, train_data):
        claimed.append(self.files.is_claimed)
        save(self, epochs_done, train_data)

    monkeypatch.setattr(SafeCheckpoints, "_save_resume", watched)
    result = run("SASRec", "Mini", overrides={**SASREC, "data_path": str(own_data)})
    assert claimed == [True, True]
    assert not RunFiles(Path(result["files"]["result"]).parent).is_claimed


@pytest.mark.slow
@pytest.mark.parametrize("model", ["SASRec", "BBQRec"])
def test_seconds_are_those_of_all_processes(own_data, tiny, model):
    options = {**(tiny if model == "BBQRec" else SASREC), "data_path": str(own_data)}
    files = unfinished(run(model, "Mini", overrides=options))
    state = torch.load(files.resume, weights_only=True)
    if model == "SASRec":
        assert state["seconds"] > 0
        state["seconds"] = 1000.0
    else:
        state["loops"]["tokenize"]["seconds"] = 1000.0
    torch.save(state, files.resume)
    resumed = run(model, "Mini", overrides={**options, "resume": "auto"})
    assert 1000 <= resumed["seconds"]["train"] < 1100
