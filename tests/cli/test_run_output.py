"""Output of a run on the command line."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from recbole_bbqrec.cli.main import main
from tests.support.runs import ROOT


@pytest.fixture
def command(tiny):
    return ["run", "--model=ItemNeighbours", "--dataset=Mini", f"--data_path={tiny['data_path']}"]


@pytest.mark.slow
@pytest.mark.parametrize("word", ["--quiet", "--save_data=True"])
def test_standard_output_has_the_final_block_alone(command, rundir, capsys, word):
    assert main([*command, word]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("  model  ") and "test recall@10" in shown.out
    assert " INFO " not in shown.out and (" INFO " in shown.err) == (word != "--quiet")
    assert "file model" not in shown.err and "codebook_levels" not in shown.err
    (log,) = (rundir / "log" / "ItemNeighbours").glob("*.log")
    text = log.read_text(encoding="utf-8")
    assert " INFO " in text and shown.out in text and "learning_rate" in text


@pytest.mark.parametrize(
    "words",
    [
        "run --model=BBQReck --dataset=Mini",
        "run --model BBQReck --dataset=Mini",
        "run --modle=BBQRec",
        "run --model=BBQRec --dataset=Minni",
        "compare --models=SASRec,BBQReck --datasets=Mini",
    ],
)
def test_a_misspelt_name_is_refused_before_torch_is_imported(rundir, words):
    script = (
        "import sys; from recbole_bbqrec.cli.main import main; code = main(sys.argv[1:]); "
        "print(code, 'torch' in sys.modules, 'recbole.config' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *words.split()],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.split() == ["2", "False", "False"]
    assert "Did you mean" in done.stderr


def test_quiet_and_verbose_exclude_each_other(command, rundir, capsys):
    assert main([*command, "--quiet", "--verbose"]) == 2
    assert "`--quiet` and `--verbose`" in capsys.readouterr().err
