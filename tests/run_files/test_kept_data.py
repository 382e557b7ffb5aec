"""The data that a run read, kept in its directory: shared by hard links, checked when read."""

from __future__ import annotations

import json
import os

import pytest

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.run_files.kept_data import ReadFiles, keep_model, own_data
from recbole_bbqrec.run_files.names import PLAN, RunFiles

FILES = {"D.inter": "events", "D.item": "items", "D.text.npy": "rows", "D.titles.tsv": "titles",
         "D.item_table.parquet": "columns"}  # fmt: skip
CONFIG = {
    "dataset": "D", "modalities": ["text"], "additional_feat_suffix": None,
    "benchmark_filename": None,
}  # fmt: skip


@pytest.fixture
def config(tmp_path):
    folder = tmp_path / "dataset" / "D"
    folder.mkdir(parents=True)
    for name, text in {**FILES, "D.image.npy": "unread", "notes.txt": "unread"}.items():
        (folder / name).write_text(text)
    return {**CONFIG, "data_path": str(folder)}


def kept(config, checkpoint_dir) -> RunFiles:
    files = RunFiles.new(checkpoint_dir, "BBQRec")
    ReadFiles.of(config).keep(files)
    return files


def test_what_the_run_reads_is_kept_byte_for_byte_and_nothing_else(config, tmp_path):
    files = kept(config, tmp_path / "saved")
    found = {path.name: path.read_text() for path in (files.data / "D").iterdir()}
    assert found == FILES
    assert own_data(files) == {"data_path": str(files.data)}
    assert json.loads(files.manifest.read_text())["files"]["D.inter"]["bytes"] == len("events")


def test_runs_on_one_version_share_its_bytes_and_no_more_is_left_when_they_are_gone(
    config, tmp_path
):
    first, second = (kept(config, tmp_path / "saved") for _ in range(2))
    inter = [files.data / "D" / "D.inter" for files in (first, second)]
    assert os.path.samefile(*inter) and inter[0].stat().st_nlink == 3
    (tmp_path / "dataset/D/D.inter").write_text("tomorrow")
    third = kept(config, tmp_path / "saved")
    assert (third.data / "D/D.inter").read_text() == "tomorrow"
    assert inter[0].read_text() == "events"
    assert os.path.samefile(third.data / "D/D.item", first.data / "D/D.item")
    for files in (first, second):
        (files.data / "D/D.inter").unlink()
    ReadFiles.of(config).keep(RunFiles.new(tmp_path / "saved", "BBQRec"))
    assert len(list(third.pool.iterdir())) == len(FILES)


def test_without_hard_links_each_run_has_a_copy(config, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError

    monkeypatch.setattr(os, "link", refuse)
    first, second = (kept(config, tmp_path / "saved") for _ in range(2))
    assert (second.data / "D/D.inter").read_text() == "events"
    assert not os.path.samefile(first.data / "D/D.inter", second.data / "D/D.inter")
    first.model.write_text("weights")
    keep_model(first)
    assert first.model_inside.read_text() == "weights"


def test_the_directory_alone_names_its_model(tmp_path):
    files = RunFiles.new(tmp_path, "BBQRec")
    files.model.write_text("weights")
    keep_model(files)
    assert files.model == tmp_path / f"{files.directory.name}.pth"
    files.model.unlink()
    assert files.model == files.directory / "model.pth"
    assert RunFiles.at(files.model) == files


def test_a_file_that_changes_while_it_is_read_is_refused(config, tmp_path):
    files, read = RunFiles.new(tmp_path / "saved", "BBQRec"), ReadFiles.of(config)
    (tmp_path / "dataset/D/D.inter").write_text("other events")
    with pytest.raises(UserError, match=r"D\.inter has changed while the run read it"):
        read.keep(files)
    assert own_data(files) == {}  # nothing half-kept is used


def test_other_data_that_the_user_names_win(config, tmp_path):
    files = kept(config, tmp_path / "saved")
    assert own_data(files, {"data_path": "elsewhere"}) == {}


def rewrite(path, text: str) -> None:
    path.chmod(0o644)
    path.write_text(text)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f.data / "D/D.inter").unlink(), r"D\.inter cannot be read.*--data_path"),
        (lambda f: f.manifest.write_text("{"), r"manifest\.json cannot be read"),
        (lambda f: f.manifest.write_text('{"format": 9}'), r"format 9; expected 1"),
        (
            lambda f: f.manifest.write_text(f.manifest.read_text().replace("D.inter", "../x")),
            "is not the name of a file",
        ),
        (
            lambda f: rewrite(f.data / "D/D.item", "itemz"),
            r"D\.item is damaged",
        ),
    ],
)  # fmt: skip
def test_a_damaged_bundle_is_one_error(config, tmp_path, damage, message):
    files = kept(config, tmp_path / "saved")
    damage(files)
    with pytest.raises(UserError, match=message):
        own_data(files)


def test_the_runs_of_a_store_share_its_folder(config, tmp_path):
    for run in "ab":
        (tmp_path / "runs" / "D" / "BBQRec" / run).mkdir(parents=True)
        (tmp_path / "runs" / "D" / "BBQRec" / run / PLAN).touch()
    a, b = (kept(config, tmp_path / "runs" / "D" / "BBQRec" / run / "saved") for run in "ab")
    assert os.path.samefile(a.data / "D/D.inter", b.data / "D/D.inter")
    assert a.pool == tmp_path / "runs" / "data"
