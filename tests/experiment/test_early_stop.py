"""Trials that are stopped because others are ahead."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recbole_bbqrec.cli.main import main
from recbole_bbqrec.experiment.store.launch import OneAfterAnother
from recbole_bbqrec.experiment.tune.early_stop import validation_scores
from recbole_bbqrec.run_files.names import CONFIG, RESULT, SAVED

ROOT = Path(__file__).resolve().parents[2]
pytest.importorskip("optuna", reason="its pruner decides")


def test_scores_of_phase_two(tmp_path):
    run = tmp_path / SAVED / "BBQRec-1"
    run.mkdir(parents=True)
    lines = [
        {"phase": "tokenize", "epoch": 0, "valid": {"ndcg@10": 0.9}},
        {"phase": "generate", "epoch": 0, "valid": {"ndcg@10": 0.1}},
        {"phase": "generate", "epoch": 1},
        {"phase": "generate", "epoch": 2, "valid": {"ndcg@10": 0.2}},
    ]
    (run / "epochs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert validation_scores(tmp_path, "ndcg@10") == [0.1, 0.2]
    assert validation_scores(tmp_path / "none", "ndcg@10") == []


@pytest.mark.slow
def test_a_trial_that_falls_behind_is_stopped(tmp_path, monkeypatch, capsys):
    """Trials with a hidden size of 8 have low scores: once others are ahead, they end early."""
    validated = []

    def process(self, directory, stop):
        size = json.loads(json.dumps(read(directory / CONFIG)))["hidden_size"]
        run = directory / SAVED / "GRU4Rec-1"
        run.mkdir(parents=True)
        score = 0.1 if size == 8 else 0.5
        for epoch in range(20):
            line = {"phase": "train", "epoch": epoch, "valid": {"ndcg@10": score + epoch / 1000}}
            with (run / "epochs.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
            if stop(directory):
                validated.append((size, epoch + 1))
                return -15
        validated.append((size, 20))
        result = {"best_valid_score": score + 0.019, "best_valid_result": {}, "test_result": {}}
        (directory / RESULT).write_text(json.dumps(result))
        return 0

    from recbole_bbqrec.config.values import read_yaml as read

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(OneAfterAnother, "_process", process)
    Path("space.txt").write_text("hidden_size choice [8,64]\nlearning_rate loguniform -8,-2\n")
    options = ["--model=GRU4Rec", "--dataset=Mini", f"--data_path={ROOT / 'dataset'}"]
    search = ["tune", *options, "--params=space.txt", "--algo=random", "--trials=12", "--asha"]
    assert main(search) == 0  # what is stopped has not failed
    output = capsys.readouterr().out
    early = [(size, epochs) for size, epochs in validated if epochs < 20]
    assert early and {size for size, _ in early} == {8}
    assert f"({len(early)} stopped early)" in output
    assert "stopped, other trials were ahead" in Path("tuning/GRU4Rec-Mini/trials.csv").read_text()
    assert "hidden_size 64" in output.splitlines()[-4]
    assert main([*search[:-3], "--asha"]) == 2  # every combination is no draw
    assert "--asha" in capsys.readouterr().err
