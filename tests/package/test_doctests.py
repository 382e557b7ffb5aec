"""Examples in docstrings, in every module that has any."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import recbole_bbqrec

ROOT = Path(recbole_bbqrec.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)
    for path in ROOT.rglob("*.py")
    if ">>>" in path.read_text(encoding="utf-8")
)


def test_there_are_examples() -> None:
    assert "recbole_bbqrec.generator.items.trie" in MODULES


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0
