"""Output of a run on the command line."""

from __future__ import annotations

import pytest

from recbole_bbqrec.cli.main import main
from recbole_bbqrec.run_files import console


@pytest.fixture
def command(tiny):
    return ["run", "--model=ItemNeighbours", "--dataset=Mini", f"--data_path={tiny['data_path']}"]


@pytest.fixture(autouse=True)
def _reset():
    yield
    console.show(console.Shown.NORMAL)


@pytest.mark.slow
def test_quiet_prints_the_final_block_alone(command, rundir, capsys):
    assert main([*command, "--quiet"]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("  model  ") and "test recall@10" in shown.out
    assert " INFO " not in shown.err
    (log,) = (rundir / "log" / "ItemNeighbours").glob("*.log")
    assert " INFO " in log.read_text(encoding="utf-8")


def test_quiet_and_verbose_exclude_each_other(command, rundir, capsys):
    assert main([*command, "--quiet", "--verbose"]) == 2
    assert "`--quiet` and `--verbose`" in capsys.readouterr().err
