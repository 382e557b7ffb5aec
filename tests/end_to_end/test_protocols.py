"""Models of every kind under the protocols: a user's targets and the tables made of them."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from recbole_bbqrec.cli.main import main
from recbole_bbqrec.quick_start import run
from tests.support.runs import TINY

ROOT = Path(__file__).resolve().parents[2]
SHORT = {"epochs": 1, "state": "ERROR", "train_batch_size": 512, "num_threads": 1}
DATA = {"data_path": str(ROOT / "dataset")}


@pytest.mark.parametrize(
    "model, protocol",
    [
        ("BBQRec", "next_day"), ("BBQRec", "time:0.8"), ("VQRec", "time:0.8"),
        ("ItemNeighbours", "next_day"), ("SASRec", "leave_one_out_shuffled_ties:3"),
        ("FPMC", "time:0.8"), ("BERT4Rec", "next_day"),
    ],
)  # fmt: skip
def test_every_kind_of_model(rundir, model, protocol):
    options = {**SHORT, **DATA, "protocol": protocol}
    if model == "BBQRec":
        options.update({k: v for k, v in TINY.items() if k not in ("data_path", "epochs")})
    result = run(model, "Mini", overrides=options)
    counts = result["split"]
    assert counts["protocol"] == protocol
    assert result["by_target"]["all"]["targets"] == counts["targets"]["test"]
    for name, value in result["by_target"]["all"]["metrics"].items():
        assert value == pytest.approx(result["test_result"][name], abs=1e-6)
    groups = set(result["by_target"])
    assert "later day" in groups and ("same day" in groups) == (protocol != "next_day")


def test_several_targets_of_a_user_are_evaluated_and_reported(rundir, capsys):
    options = {**SHORT, **DATA, "protocol": "time:0.8", "time_target": "all"}
    result = run("ItemNeighbours", "Mini", overrides=options)
    counts = result["split"]
    assert counts["targets"]["test"] > counts["test_users"] == result["users"]["tested"]
    saved = Path(result["files"]["model"]).with_suffix("")
    assert main(["report", str(saved)]) == 0
    report = json.loads((saved / "report.json").read_text())
    assert report["run"]["test_users"] == counts["test_users"]
    assert report["run"]["test_targets"] == counts["targets"]["test"]
    assert report["test"]["agree"]
    assert main(["evaluate", str(saved)]) == 0
    assert "| later day" in capsys.readouterr().out


def test_runs_of_two_protocols_are_not_compared(rundir, capsys):
    saved = []
    for protocol in ("next_day", None):
        result = run("ItemNeighbours", "Mini", overrides={**SHORT, **DATA, "protocol": protocol})
        saved.append(str(Path(result["files"]["model"]).with_suffix("")))
    assert main(["evaluate", *saved]) == 2
    assert "cannot be compared: the split of the data" in capsys.readouterr().err


def test_a_run_from_before_the_data_had_times_is_evaluated_with_them(rundir, capsys):
    shutil.copytree(ROOT / "dataset" / "Mini", rundir / "old" / "Mini")
    table = rundir / "old" / "Mini" / "Mini.inter"
    rows = [line.split("\t")[:3] for line in table.read_text().splitlines()]
    table.write_text("".join("\t".join(row) + "\n" for row in rows))
    result = run("ItemNeighbours", "Mini", overrides={**SHORT, "data_path": "old"})
    assert "later day" not in result["by_target"]
    saved = str(Path(result["files"]["model"]).with_suffix(""))
    assert main(["evaluate", saved, f"--data_path={ROOT / 'dataset'}", "--output=out"]) == 0
    with open("out/by_target.csv", newline="") as file:
        counts = {row["targets"]: int(row["count"]) for row in csv.DictReader(file)}
    assert counts["same day"] + counts["later day"] == counts["all"] == 617


@pytest.mark.parametrize(
    "option, words",
    [
        ("--protocol=nextday", ["`protocol` is 'nextday'", "next_day", "time:0.9"]),
        ("--protocol=time:1.5", ["time:1.5", "between 0 and 1"]),
        ("--time_target=middle", ["`time_target`", "last, first, all"]),
        ("--day_length=0", ["`day_length`", "above 0"]),
    ],
)
def test_wrong_options_are_named(rundir, capsys, option, words):
    arguments = ["run", "--model=SASRec", "--dataset=Mini", f"--data_path={ROOT / 'dataset'}"]
    assert main([*arguments, option]) == 2
    error = capsys.readouterr().err
    assert all(word in error for word in words), error


def test_a_protocol_beside_another_split_is_refused(rundir, capsys):
    arguments = ["run", "--model=SASRec", "--dataset=Mini", f"--data_path={ROOT / 'dataset'}"]
    assert main([*arguments, "--protocol=next_day", "--eval_args={'split': {'RS': [8,1,1]}}"]) == 2
    error = capsys.readouterr().err
    assert "`protocol` is next_day" in error and "RS" in error and "Remove one" in error
