"""What an import without RecBole says, and what the packaging requires on each Python."""

from __future__ import annotations

import configparser
import importlib.metadata
import importlib.util
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
            assert name in {"numpy", "torch"}
