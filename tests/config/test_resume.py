"""``resume=auto``: what cannot be continued is named, and the newest usable run is taken."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.config.resume import find_resumable
from recbole_bbqrec.run_files.checkpoint import load_checkpoint, random_state, save_checkpoint
from recbole_bbqrec.run_files.names import RunFiles
from tests.support.runs import ROOT

OPTIONS = {"data_path": str(ROOT / "dataset"), "epochs": 3, "checkpoint_dir": "saved"}


@pytest.fixture
def make(rundir):
    """Write an interrupted run called SASRec-NAME, ``age`` seconds old."""

    def write(name: str, age: int, **options) -> RunFiles:
        config = BBQRecConfig("SASRec", "Mini", overrides={**OPTIONS, **options})
        files = RunFiles(Path("saved") / f"SASRec-{name}")
        files.directory.mkdir(parents=True)
        files.config.write_text(config.to_text())
        state = {"config": config.to_text(), "model": "SASRec", "split_hash": ""}
        save_checkpoint({**state, "random": random_state()}, files.resume)
        os.utime(files.resume, (1e9 - age, 1e9 - age))
        return files

    return write


def found() -> str | None:
    files = find_resumable(BBQRecConfig("SASRec", "Mini", overrides=OPTIONS))
    return None if files is None else files.directory.name


def damage(files: RunFiles, how: str) -> None:
    content = bytearray(files.resume.read_bytes())
    if how == "bit":
        content[content.index(b"epochs: ") + 8] ^= 1
    files.resume.write_bytes(content[:300] if how == "cut" else content)
    if how == "empty":
        files.resume.write_bytes(b"")
    if how == "key":
        state = load_checkpoint(files.resume)
        del state["random"]
        save_checkpoint(state, files.resume)
    if how == "text":
        state = load_checkpoint(files.resume)
        torch.save({**state, "config": state["config"].replace("model: ", "nodel: ")}, files.resume)
    if how == "other type":
        torch.save({**load_checkpoint(files.resume), "config": {"model": 3}}, files.resume)
    os.utime(files.resume, (1e9, 1e9))


HOW = ("bit", "cut", "empty", "key", "text", "other type")


@pytest.mark.parametrize("how", HOW)
def test_a_damaged_run_is_named_and_the_next_one_taken(make, caplog, how):
    make("old", 20)
    make("middle", 10)
    damage(make("new", 0), how)
    assert found() == "SASRec-middle"
    assert "SASRec-new" in caplog.text and "middle" not in caplog.text


@pytest.mark.parametrize("how", HOW)
def test_where_no_run_is_usable_a_new_one_is_announced(make, caplog, how):
    damage(make("new", 0), how)
    assert found() is None
    assert "SASRec-new" in caplog.text and "a new run begins" in caplog.text


@pytest.mark.parametrize("how", HOW)
def test_a_damaged_run_of_other_options_is_nobodys_concern(make, caplog, how):
    damage(make("other", 0, epochs=4), how)
    assert found() is None and not caplog.text
    make("ours", 10)
    assert found() == "SASRec-ours" and not caplog.text


def test_a_lock_that_may_not_be_taken_stops_nobody(make, caplog, monkeypatch):
    """Runs of another user are passed over, ours with a word."""
    claim = RunFiles.claim
    closed = {"SASRec-his", "SASRec-closed"}

    def refuse(self):
        if self.directory.name in closed:
            (self.directory / "lock").mkdir()  # nobody can open it for writing
        return claim(self)

    monkeypatch.setattr(RunFiles, "claim", refuse)
    make("his", 0, epochs=4)
    make("closed", 5)
    make("ours", 10)
    assert found() == "SASRec-ours"
    assert "SASRec-closed" in caplog.text and "lock" in caplog.text and "his" not in caplog.text


def test_a_run_at_work_is_left_alone_and_one_without_a_state_too(make, caplog):
    with make("busy", 0).claim():
        started = make("started", 5)
        started.resume.unlink()
        left = started.directory / ".resume.pth.abcdefgh.tmp"
        left.write_text("half")
        make("finished", 7).result.write_text("{}")
        assert found() is None and not caplog.text
        assert not left.exists()


def test_what_a_run_killed_while_it_kept_its_data_left_is_removed(make):
    """A run has its options and its state later than its data."""
    killed = make("killed", 5)
    with killed.claim():
        pass
    killed.config.unlink()
    killed.resume.unlink()
    left = killed.data / "Mini" / ".Mini.text.npy.abcdefgh.tmp"
    left.parent.mkdir(parents=True)
    left.write_text("half")
    assert found() is None and not left.exists()


def test_claiming_a_run_removes_what_a_killed_process_left(make):
    files, other = make("ours", 0), make("other", 5)
    left = [
        files.directory / ".resume.pth.abcdefgh.tmp",
        files.directory / ".semantic_ids.safetensors.12345678.tmp",
        files.model.with_name(f".{files.model.name}.abcd_123.tmp"),
    ]
    kept = [other.directory / left[0].name, files.model.with_name(".mine.tmp")]
    kept.append(files.model.with_name(f".{other.model.name}.abcd_123.tmp"))
    for path in (*left, *kept):
        path.write_text("half")
    files.claim().release()
    assert not any(path.exists() for path in left) and all(path.exists() for path in kept)
