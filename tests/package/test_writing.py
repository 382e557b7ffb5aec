"""Writes that fail: one message with file and cause, the old file whole, nothing left behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from recbole_bbqrec import atomic
from recbole_bbqrec.atomic import (
    atomic_folder,
    atomic_path,
    remove_folder,
    remove_unfinished,
    write_bytes,
    write_text,
    writing,
)
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.run_files.checkpoint import save_checkpoint
from recbole_bbqrec.tokenizer.semantic_ids import SemanticIds
from tests.support.runs import ROOT

resource = pytest.importorskip("resource", reason="limits of file sizes are POSIX")

LIMIT = 50_000  # bytes of a file
LARGE = np.zeros(4 * LIMIT, np.uint8)


@pytest.fixture
def small_files():
    """Let the operating system refuse larger files, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _array(path):
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.save(file, LARGE, allow_pickle=False)


def _ids(path):
    n = 4000
    SemanticIds(
        tuple(map(str, range(n))), torch.zeros(n, 2, 1, dtype=torch.int64), torch.zeros(n, 4),
        None, ("id",), {"codebook_size": 2},
    ).save(path)  # fmt: skip


WRITES = {
    "text": lambda path: write_text(path, "x" * LARGE.size),
    "bytes": lambda path: write_bytes(path, LARGE.tobytes()),
    "array": _array,
    "checkpoint": lambda path: save_checkpoint({"x": torch.zeros(LARGE.size)}, path),
    "semantic IDs": _ids,
}


@pytest.mark.parametrize("kind", WRITES)
def test_no_room_is_one_message_and_the_old_file_stays(tmp_path, small_files, monkeypatch, kind):
    monkeypatch.setattr(atomic, "_free", lambda folder: 0)
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(UserError, match=r"Cannot write .*file: (file too large|no space left)"):
        WRITES[kind](path)
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("kind", WRITES)
def test_a_file_in_a_folders_place_is_named(tmp_path, kind):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(UserError, match=r"Cannot write .*x: .*(taken|not a directory|exists)"):
        WRITES[kind](tmp_path / "taken" / "x")
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_folder_in_a_files_place_is_named(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(UserError, match="Cannot write .*x: is a directory"):
        write_text(tmp_path / "x", "text")
    assert [each.name for each in tmp_path.iterdir()] == ["x"]


def test_other_errors_and_a_closed_pipe_pass(tmp_path):
    with pytest.raises(ZeroDivisionError), atomic_path(tmp_path / "x"):
        1 / 0  # noqa: B018
    with pytest.raises(BrokenPipeError), writing("x"):
        raise BrokenPipeError
    assert not list(tmp_path.iterdir())


def test_unfinished_files_are_removed_and_nothing_else(tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    for name in ("resume.pth", "config.yaml"):
        with atomic_path(tmp_path / name) as temporary:
            os.link(temporary, kept / temporary.name)  # as a killed process leaves it
    others = {".mine.tmp", "x.tmp", ".hidden"}
    for name in others:
        (kept / name).write_text("the user's")
    assert len(list(kept.iterdir())) == 5
    remove_unfinished(kept)
    assert {path.name for path in kept.iterdir()} == others


#: Begins a file and a folder called out, and is killed before they are whole.
KILLED = """
import os
from recbole_bbqrec.atomic import atomic_folder, atomic_path
with atomic_path("file") as file, atomic_folder("folder") as folder:
    file.write_text("half")
    (folder / "part").write_text("half")
    os.kill(os.getpid(), 9)
"""


def test_what_a_killed_process_left_is_removed_by_the_next_write(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", KILLED], cwd=tmp_path, env=environment, check=False)
    assert len(list(tmp_path.glob(".*.tmp"))) == 2
    write_text(tmp_path / "file", "whole")
    with atomic_folder(tmp_path / "folder") as folder:
        (folder / "part").write_text("whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["part"]


def test_the_unfinished_file_of_a_living_process_stays(tmp_path):
    with atomic_path(tmp_path / "x") as first, atomic_folder(tmp_path / "y") as folder:
        first.write_text("first")
        write_text(tmp_path / "x", "second")
        remove_unfinished(tmp_path)
        assert first.is_file() and folder.is_dir()
    assert (tmp_path / "x").read_text() == "first"
    assert (tmp_path / "y").is_dir()


def test_a_folder_that_fails_is_removed_and_has_the_usual_mode(tmp_path):
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "x"):
        1 / 0  # noqa: B018
    assert not list(tmp_path.iterdir())
    with atomic_folder(tmp_path / "x"):
        pass
    (tmp_path / "y").mkdir()
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "y").stat().st_mode


def test_a_folder_being_removed_is_removed_by_the_next_write(tmp_path, monkeypatch):
    (tmp_path / "parts").mkdir()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "rmtree", Mock(side_effect=KeyboardInterrupt))
        remove_folder(tmp_path / "parts", of="x")
    write_text(tmp_path / "x", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
