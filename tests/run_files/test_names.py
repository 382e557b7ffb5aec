"""Names of a run's files: every way to name a run, and all runs of a folder."""

from __future__ import annotations

import pytest

from recbole_bbqrec.run_files.names import RunFiles


@pytest.mark.parametrize("path", ["", ".pth", "/resume.pth"])
def test_a_run_is_found_by_each_of_its_paths(tmp_path, path):
    directory = tmp_path / "BBQRec-v1.2"
    assert RunFiles.at(tmp_path / f"BBQRec-v1.2{path}").directory == directory
    assert RunFiles(directory).model == tmp_path / "BBQRec-v1.2.pth"


def test_all_runs_of_a_folder(tmp_path):
    first, second = RunFiles.new(tmp_path, "TIGER"), RunFiles.new(tmp_path, "TIGER")
    other = RunFiles.new(tmp_path, "BBQRec")
    first.model.touch()
    assert first.directory != second.directory
    assert set(RunFiles.all_in(tmp_path)) == {first, second, other}
    assert set(RunFiles.all_in(tmp_path, "TIGER")) == {first, second}
    assert list(RunFiles.all_in(tmp_path / "none")) == []
