"""The rules of the house that no linter holds: sizes of folders and files, and where tests lie."""

from __future__ import annotations

import configparser
from collections import Counter

from tests.support.runs import ROOT

PACKAGE = ROOT / "recbole_bbqrec"
MODULES = [path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]
TESTS = list((ROOT / "tests").rglob("*.py"))
MOST_MODULES, MOST_LINES = 12, 350
#: Folders that may hold more: a module a model, as RecBole has them; a module a part of the card.
#: Test folders that no room has: across rooms, about the package as a whole, and helpers.
ACROSS = {"end_to_end", "package", "support"}


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
