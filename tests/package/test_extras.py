"""The extras of setup.cfg are those that ``doctor`` knows."""

from __future__ import annotations

import configparser
import importlib.metadata
import re

import pytest

from recbole_bbqrec.errors import pip_install
from recbole_bbqrec.onboarding.environment import EXTRAS
from tests.support.runs import ROOT


def test_doctor_knows_every_extra_of_users():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    assert set(EXTRAS) == set(parser["options.extras_require"]) - {"dev", "docs"}


@pytest.mark.parametrize("installed", [True, False])
def test_the_command_that_installs_an_extra_fits_the_installation(installed, monkeypatch):
    def version(name):
        if not installed:
            raise importlib.metadata.PackageNotFoundError
        return "0.2.0"

    monkeypatch.setattr(importlib.metadata, "version", version)
    package = "recbole_bbqrec" if installed else ROOT
    assert pip_install("plots") == f"pip install '{package}[plots]'"


def test_every_extra_that_a_message_names_exists():
    named = set()
    for path in (ROOT / "recbole_bbqrec").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        named |= set(re.findall(r"pip_install\([\"'](\w+)", text))
        assert "recbole_bbqrec[" not in text or path.name == "errors.py", path
    assert named and named <= set(EXTRAS)
