"""Message of an import without RecBole, and requirements of the packaging on each Python."""

from __future__ import annotations

import configparser
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from recbole_bbqrec import compat

ROOT = Path(__file__).resolve().parents[2]


def requirements() -> list[str]:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    lines = parser["options"]["install_requires"].splitlines()
    return [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]


def test_without_recbole_the_import_says_what_to_run(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install --no-deps recbole==1\.2\.1"):
        compat.require_recbole()


@pytest.mark.parametrize(
    "words", [["-m", "recbole_bbqrec", "models"], [str(ROOT / "run_recbole_bbqrec.py")]]
)
def test_without_recbole_a_command_is_one_message(tmp_path, words):
    """Python 3.12 and newer are such: pip does not install RecBole there."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'recbole' else find(name, *more)\n"
    )
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, *words], env={**os.environ, "PYTHONPATH": path}, cwd=tmp_path,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: recbole_bbqrec needs RecBole 1.2.1")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("code", ["raise RuntimeError('no GPU')", "__version__ = '1.2.0'"])
def test_a_recbole_that_fails_is_one_message_and_leaves_exported_models(tmp_path, code):
    (tmp_path / "recbole").mkdir()
    (tmp_path / "recbole" / "__init__.py").write_text(code + "\n")
    script = """if True:
        import recbole_bbqrec, recbole_bbqrec.portable.programs
        from recbole_bbqrec.portable.model import PortableModel
        for name in ("run", "load_run", "Session", "add_model", "quick_start"):
            try:
                exec(f"from recbole_bbqrec import {name}")
            except ImportError as error:
                assert "pip install --no-deps recbole==1.2.1" in str(error), error
            else:
                raise SystemExit(name)
        from recbole_bbqrec.cli.main import main
        assert main(["models"]) == 2
    """
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    for words in (["-c", script], ["-m", "recbole_bbqrec", "models"]):
        done = subprocess.run(
            [sys.executable, *words], env={**os.environ, "PYTHONPATH": path}, cwd=tmp_path,
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == (0 if words[0] == "-c" else 2), done.stderr
        assert done.stderr.startswith("error: recbole_bbqrec needs RecBole 1.2.1")
        assert done.stderr.count("\n") == 1


def test_another_recbole_is_refused(monkeypatch):
    import recbole

    monkeypatch.setattr(recbole, "__version__", "1.2.0")
    with pytest.raises(ImportError, match=r"version 1\.2\.0 is installed"):
        compat.require_recbole()


def test_newer_pythons_require_what_recbole_needs_but_ray():
    """RecBole's own list, read from its metadata, must be covered where pip cannot install it."""
    theirs = {
        line.split()[0].split("(")[0].split(">")[0].split("<")[0].split("=")[0].lower()
        for line in importlib.metadata.requires("recbole") or []
        if "extra ==" not in line
    }
    ours = {
        line.split(";")[0].split("<")[0].split("=")[0].split(">")[0].strip().lower()
        for line in requirements()
        if 'python_version < "3.12"' not in line
    }
    assert theirs - ours == {"ray"}


def test_no_caps_on_numpy_torch_or_setuptools():
    for line in requirements():
        name = line.split(";")[0].strip()
        if name.startswith(("numpy", "torch", "setuptools")):
            assert "<" not in name and "==" not in name


def test_lower_bounds_are_the_versions_that_were_run():
    oldest = {}
    for line in (ROOT / ".ci/constraints/oldest.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            version, _, marker = line.partition(";")
            name, _, number = version.strip().partition("==")
            if not marker or "<" in marker:  # of Python 3.9
                oldest[name] = number
    bounds = {}
    for line in requirements():
        name, at_least, rest = line.partition(">=")
        if at_least and ";" not in name:
            bounds[name] = rest.partition(",")[0].partition(";")[0].strip()
    assert bounds == oldest
