"""A saved run is a bundle: it answers, evaluates and resumes whatever becomes of its data."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from recbole_bbqrec import load_run, run
from recbole_bbqrec.cli.main import main
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.run_files.finished_run import FinishedRun
from tests.support.runs import ROOT, TINY

OPTIONS = {
    "BBQRec": {**TINY, "epochs": 1, "tokenizer_epochs": 2},
    "SASRec": {
        "epochs": 1, "hidden_size": 16, "inner_size": 32, "n_layers": 1, "show_progress": False,
    },
}  # fmt: skip


def refresh(data: Path) -> None:
    """Replace the data set in place by tomorrow's: other events, items and features."""
    path = data / "Mini" / "Mini.inter"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *lines[1:-2000]]) + "\n")
    (data / "Mini" / "Mini.text.npy").unlink()


@pytest.fixture(scope="module", params=["BBQRec", "SASRec"])
def bundle(request, tmp_path_factory):
    """A run's directory alone, copied elsewhere, and what the run said with its data in place."""
    folder = tmp_path_factory.mktemp("bundle")
    shutil.copytree(ROOT / "dataset" / "Mini", folder / "dataset" / "Mini")
    options = OPTIONS[request.param]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run(request.param, "Mini", overrides={**options, "data_path": "dataset"})
        (directory,) = (path for path in Path("saved").glob("*-*") if path.is_dir())
        before = load_run(directory, {"data_path": "dataset"}).recommend(users=["u0001"], k=5)
        refresh(folder / "dataset")
        with pytest.raises(UserError, match="Restore the data|not found"):
            load_run(directory, {"data_path": "dataset"})
    alone = folder / "elsewhere" / directory.name
    shutil.copytree(folder / directory, alone)
    shutil.rmtree(folder / "saved")
    shutil.rmtree(folder / "dataset")
    return alone, before


def test_it_answers_from_its_directory_alone(bundle):
    alone, before = bundle
    pd.testing.assert_frame_equal(load_run(alone).recommend(users=["u0001"], k=5), before)
    assert before["title"].str.len().min() > 0


def test_it_evaluates_to_its_own_metrics(bundle, capsys):
    alone, _ = bundle
    assert main(["evaluate", str(alone)]) == 0
    recall = FinishedRun.at(alone).result["test_result"]["recall@10"]
    assert f"{recall:.4f}" in capsys.readouterr().out


def test_an_interrupted_run_goes_on_with_the_data_it_began_with(rundir, monkeypatch):
    shutil.copytree(ROOT / "dataset" / "Mini", rundir / "dataset" / "Mini")
    options = {**OPTIONS["SASRec"], "data_path": "dataset"}
    whole = run("SASRec", "Mini", overrides=options)
    files = FinishedRun.at(Path(whole["files"]["model"])).files
    shutil.rmtree(files.directory)
    files.model.unlink()
    monkeypatch.setattr("recbole_bbqrec.quick_start._test", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("SASRec", "Mini", overrides=options)
    monkeypatch.undo()
    monkeypatch.chdir(rundir)
    refresh(rundir / "dataset")
    (directory,) = (path for path in Path("saved").glob("*-*") if path.is_dir())
    again = run(overrides={"resume": str(directory), "show_progress": False})
    assert again["test_result"] == whole["test_result"]
    assert again["split_hash"] == whole["split_hash"]


def test_without_save_data_a_run_needs_its_data(rundir):
    result = run("ItemNeighbours", "Mini", overrides={
        "data_path": TINY["data_path"], "save_data": False, "show_progress": False
    })  # fmt: skip
    directory = Path(result["files"]["model"]).with_suffix("")
    assert not (directory / "data").exists() and not (directory / "model.pth").exists()
    assert len(load_run(directory).recommend(users=["u0001"], k=3)) == 3
