"""The ladder from the letter of the paper to BBQRec: its rungs, and its report."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from recbole_bbqrec.cli.main import main
from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.config.yaml_files import properties_directory
from recbole_bbqrec.experiment.reproduce.results import ladder
from recbole_bbqrec.experiment.reproduce.results.ladder import ADDITIONS, LAST, rungs
from recbole_bbqrec.run_files.names import PLAN, RESULT
from tests.experiment.test_reproduce import MINI, fake, line_of  # noqa: F401  (a fixture)


def config_of(rung):
    return BBQRecConfig(LAST, "nowhere", overrides={**rung.defaults, **rung.options}).resolved


@pytest.mark.slow
def test_each_rung_adds_one_thing_from_the_letter_to_the_default():
    configs = {rung.label: config_of(rung) for rung in rungs()}
    assert list(configs) == ["letter", *ADDITIONS, LAST]
    paper = properties_directory() / "model" / "BBQRec.paper.yaml"
    assert configs["letter"] == BBQRecConfig(LAST, "nowhere", [paper]).resolved
    steps = list(configs.items())
    for (_, before), (label, after) in zip(steps, steps[1:]):
        changed = {key for key in after if after[key] != before[key]}
        if label in ADDITIONS:
            assert changed and changed <= {*ADDITIONS[label]}, label
    assert [rung.name for rung in rungs()][:3] == ["letter", "causal", "item_likelihood"]
    assert not any(" " in rung.name for rung in rungs())  # --models separates names by blanks
    structural = {key for options in ADDITIONS.values() for key in options}
    assert changed and not changed & structural  # the last rung changes training and phase one
    assert configs[LAST] == BBQRecConfig(LAST, "nowhere").resolved


@pytest.mark.slow
def test_the_report_has_three_protocols(fake, capsys, monkeypatch):  # noqa: F811
    plain, evaluated = fake.process, []

    def process(directory):
        code = plain(directory)
        result = json.loads((directory / RESULT).read_text())
        metrics = {"recall@10": 0.125, "ndcg@10": 0.0625}
        result["by_target"] = {"later day": {"targets": 9, "metrics": metrics}}
        (directory / RESULT).write_text(json.dumps(result))
        return code

    def evaluate(job, split):
        evaluated.append((job, split))
        return SimpleNamespace(metrics={"recall@10": 0.75, "ndcg@10": 0.5})

    def find_jobs(paths, values, split):
        assert values == {"mask_history": True} and all((path / PLAN).is_file() for path in paths)
        return [path.name for path in paths]

    monkeypatch.setattr(fake, "process", process)
    monkeypatch.setattr(ladder, "evaluate", evaluate)
    monkeypatch.setattr(ladder, "find_jobs", find_jobs)
    what = ["reproduce", "ladder", "--datasets=Mini", MINI, "--epochs=3"]
    assert main(what) == 0
    text = capsys.readouterr().out
    assert len(fake.made) == len(evaluated) == len(rungs())
    assert {options["epochs"] for options in fake.options} == {
        3
    }  # the user's win over the letter's
    encodings = [options["history_encoding"] for options in fake.options]
    assert encodings == ["bidirectional", *["causal"] * (len(rungs()) - 1)]
    row = line_of(text, "+ item head")
    assert [cell.strip().strip("*") for cell in row.split("|")[4:9]] == [
        "0.7500", "0.5000", "0.1250", "0.0625", "120",
    ]  # fmt: skip
    with open(Path("reproduction/ladder/results.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 7 * len(rungs()) and {row["status"] for row in rows} == {"done"}
    run = SimpleNamespace(directory=next(Path("runs/Mini/BBQRec").glob(f"*/{RESULT}")).parent)
    assert ladder.masked_metrics(run)["ndcg@10"] == 0.5 and len(evaluated) == len(rungs())  # kept
