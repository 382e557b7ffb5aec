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
#: Their examples need a saved run: tests/end_to_end/test_python_face.py runs them.
NEED_A_RUN = {
    "recbole_bbqrec.loaded_run", "recbole_bbqrec.quick_start", "recbole_bbqrec.serving.session",
}  # fmt: skip


def test_there_are_examples() -> None:
    assert "recbole_bbqrec.generator.items.trie" in MODULES and set(MODULES) > NEED_A_RUN


@pytest.mark.parametrize("name", [name for name in MODULES if name not in NEED_A_RUN])
def test_examples(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0
