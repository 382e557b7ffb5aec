"""``doctor``: what is there, and how to get what is missing."""

from __future__ import annotations

import importlib.util
import shutil

import pytest
import torch

from recbole_bbqrec.cli.main import main
from recbole_bbqrec.errors import pip_install
from recbole_bbqrec.onboarding import environment
from recbole_bbqrec.onboarding.environment import examine
from tests.support.runs import ROOT


def rows(sections):
    return {row.name: row for section in sections.values() for row in section}


def test_versions_data_sets_and_threads_are_shown(capsys):
    assert main(["doctor", f"--data_path={ROOT / 'dataset'}"]) == 0
    printed = capsys.readouterr().out
    assert torch.__version__ in printed and f"{torch.get_num_threads()} of torch" in printed
    assert "Mini" in printed and "with image, text" in printed


def test_what_is_missing_has_a_remedy(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find(name)
    )
    monkeypatch.setattr(environment, "_PACKAGES", ("torch", "no-such-package"))
    found = rows(examine(tmp_path / "absent"))
    assert found["plots"].remedy == pip_install("plots")
    assert found["no-such-package"].remedy == "pip install no-such-package"
    assert "--data_path" in found["prepared"].remedy
    assert not found["torch"].remedy


def test_a_folder_that_is_no_data_set_is_passed_over(tmp_path):
    shutil.copytree(ROOT / "dataset" / "Mini", tmp_path / "Other")  # Other/Mini.inter
    assert "Other" not in rows(examine(tmp_path))


def test_more_threads_than_cores_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4096)
    assert "--num_threads=" in rows(examine(tmp_path))["threads"].remedy


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_verbs_and_arguments(shell, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "prepare" in script and "--interactions" in script and "doctor" in script


def test_completion_without_its_library_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "shtab", None)
    assert main(["completion", "bash"]) == 2
    assert "recbole_bbqrec[completion]" in capsys.readouterr().err
