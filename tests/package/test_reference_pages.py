"""The generated pages of the site name every verb, argument, option and model."""

from __future__ import annotations

import runpy

import pytest

from recbole_bbqrec.cli.main import VERBS
from recbole_bbqrec.config.options import MODEL_OPTIONS, RECBOLE_OPTIONS, RUN_OPTIONS
from recbole_bbqrec.model.specs import MODELS
from tests.support.runs import ROOT


@pytest.fixture(scope="module")
def pages() -> dict:
    script = runpy.run_path(str(ROOT / "docs/site/reference.py"))
    return {name: script[name]() for name in ("commands", "options", "models")}


def test_every_option_has_a_row(pages):
    names = {*RUN_OPTIONS, *RECBOLE_OPTIONS, *MODEL_OPTIONS}
    assert len(names) > 100
    assert not [name for name in names if f"| `{name}` | " not in pages["options"]]


def test_every_verb_and_its_arguments_are_there(pages):
    assert not [verb for verb in VERBS if f"\n## {verb}\n" not in pages["commands"]]
    for argument in ("`--interactions=FILE`", "`--params=FILE`", "`--dry_run`"):
        assert argument in pages["commands"]


def test_every_model_is_listed(pages):
    assert not [name for name in [*MODELS, "SASRec"] if f"| `{name}` | " not in pages["models"]]
    assert "### BBQRec\n" in pages["models"] and "codebook_levels: 3" in pages["models"]


@pytest.mark.parametrize("name", ["commands", "options", "models"])
def test_tables_are_whole(pages, name):
    """Every row has as many cells as its header."""
    width = None
    for line in pages[name].splitlines():
        if not line.startswith("| "):
            width = None
            continue
        cells = len(line.replace("\\|", "").split("|"))
        width = width or cells
        assert cells == width, line
