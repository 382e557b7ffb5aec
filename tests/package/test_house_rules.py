"""The rules of the house that no linter holds: sizes of folders and files, and where tests lie."""

from __future__ import annotations

import ast
import configparser
from collections import Counter

from tests.support.runs import ROOT

PACKAGE = ROOT / "recbole_bbqrec"
MODULES = [path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]
TESTS = list((ROOT / "tests").rglob("*.py"))
WITH_DOCSTRINGS = ("recbole_bbqrec", "tests", "benchmarks", "trials", "docs")
MOST_MODULES, MOST_LINES = 12, 350
#: Test folders that no room has: across rooms, about the package as a whole, and helpers.
ACROSS = {"end_to_end", "package", "support"}

#: Words that begin a half-sentence, which says nothing without the name beside it.
OPENINGS = {
    "what", "which", "how", "who", "whose", "why", "when", "where", "whether", "as", "at", "by",
    "for", "from", "in", "into", "of", "on", "to", "with", "within", "without", "under", "beyond",
    "if", "unless", "while", "because", "since", "though", "that", "this", "these", "they", "it",
    "its", "there", "then", "so", "but", "and", "or", "also", "only", "even", "not",
}  # fmt: skip


def rooms() -> set[str]:
    return {path.parent.name for path in PACKAGE.glob("*/__init__.py")}


def test_no_folder_has_more_modules_than_a_reader_can_hold():
    counts = Counter(path.parent.relative_to(PACKAGE).as_posix() for path in MODULES)
    crowded = {name: n for name, n in counts.items() if n > MOST_MODULES}
    assert len(counts) > 20 and not crowded


def test_no_file_is_longer_than_a_sitting():
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    long = {str(path): length for path, length in lengths.items() if length > MOST_LINES}
    assert max(lengths.values()) > 200 and not long


def test_a_docstring_begins_with_a_verb_or_a_noun():
    half_sentences = []
    for path in (p for folder in WITH_DOCSTRINGS for p in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                first = (ast.get_docstring(node) or "-").split()[0].strip("`.,:;").lower()
                if first in OPENINGS:
                    half_sentences.append(f"{path}:{getattr(node, 'lineno', 1)}: {first}")
    assert not half_sentences


def test_setup_cfg_lists_every_package_folder():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = parser["options"]["packages"].split()
    folders = {path.parent.relative_to(ROOT) for path in PACKAGE.rglob("*.py")}
    expected = {".".join(folder.parts) for folder in folders}
    # properties/ lies beside the package and is installed inside it: no Python in it
    yaml = {path.parent.relative_to(ROOT) for path in (ROOT / "properties").rglob("*.yaml")}
    expected |= {".".join(("recbole_bbqrec", *folder.parts)) for folder in yaml}
    assert len(listed) == len(set(listed)) and set(listed) == expected


def test_every_folder_of_modules_is_a_package():
    without = {str(p.parent) for p in MODULES if not (p.parent / "__init__.py").is_file()}
    assert not without


def test_every_test_folder_mirrors_a_room():
    folders = {path.parent.relative_to(ROOT / "tests").as_posix() for path in TESTS}
    assert folders - ACROSS - {"."} <= rooms()
    assert {path.name for path in TESTS if path.parent.name == "tests"} == {
        "__init__.py", "conftest.py",
    }  # fmt: skip
    assert {"model", "generator", "tokenizer", "trainer", "config", "data"} <= folders
