"""The notebooks of the documentation run from their first cell to the last."""

from __future__ import annotations

import re
import runpy

import pytest

from tests.support.runs import ROOT

FOLDER = ROOT / "docs" / "notebooks"
#: Notebook to what it must leave behind or print.
NOTEBOOKS = {
    "first_run": ("saved/*/report.html", r"recall@10"),
    "own_shop": ("shop.png", r"Nearest to"),
    "put_to_work": ("exported/config.json", r"semantic IDs changed"),
    "compare_models": ("comparison/table.tex", r"\\begin\{tabular\}"),
    "semantic_ids": ("buckets.png", r"level1/text"),
}


def test_every_notebook_is_run():
    assert {path.stem for path in FOLDER.glob("*.py")} == set(NOTEBOOKS)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook(name, rundir, capsys, monkeypatch):
    pytest.importorskip("matplotlib").use("Agg")
    (rundir / "dataset").symlink_to(ROOT / "dataset")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    runpy.run_path(str(FOLDER / f"{name}.py"))
    left, printed = NOTEBOOKS[name]
    assert list(rundir.glob(left))
    output = capsys.readouterr()
    assert re.search(printed, output.out) and "error:" not in output.err
