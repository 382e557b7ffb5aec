"""Curves of both phases on MLflow: the true client, with a folder for its service."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.quick_start import run
from tests.support.runs import TINY

mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed: pip install mlflow-skinny")
FEW = {**TINY, "tokenizer_epochs": 2, "epochs": 2, "eval_step": 2, "log_mlflow": "Trials"}
SMALL_SASREC = {
    **{key: FEW[key] for key in ("data_path", "epochs", "eval_step", "show_progress", "state")},
    "log_mlflow": "Trials",
    **{"hidden_size": 16, "inner_size": 16, "n_layers": 1, "n_heads": 1, "train_batch_size": 2048},
}


@pytest.fixture
def client(rundir, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # a database takes seconds to make
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{rundir}/mlruns")
    return mlflow.tracking.MlflowClient()


def logged_runs(client):
    experiment = client.get_experiment_by_name("Trials")
    return client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "model, phases", [("TIGER", ["tokenize", "generate"]), ("SASRec", ["train"])]
)
def test_a_run_is_on_mlflow(client, model, phases):
    result = run(model, "Mini", overrides=FEW if model == "TIGER" else SMALL_SASREC)
    (logged,) = logged_runs(client)
    assert logged.info.status == "FINISHED" and logged.data.params["model"] == model
    assert logged.data.metrics["test/ndcg_10"] == result["test_result"]["ndcg@10"]
    lines = [json.loads(x) for x in Path(result["files"]["epochs"]).read_text().splitlines()]
    assert {line["phase"] for line in lines} == set(phases)
    for phase in phases:
        own = [line for line in lines if line["phase"] == phase]
        for term in own[0]["terms"]:
            points = client.get_metric_history(logged.info.run_id, f"{phase}/{term}")
            assert [(p.step, p.value) for p in points] == [
                (line["epoch"], line["terms"][term]) for line in own
            ]
    last = client.get_metric_history(logged.info.run_id, f"{phases[-1]}/ndcg_10")
    assert [(p.step, p.value) for p in last] == [(1, lines[-1]["valid"]["ndcg@10"])]


@pytest.mark.slow
def test_a_resumed_run_has_all_its_epochs_and_a_killed_one_says_so(client, monkeypatch):
    from recbole_bbqrec.trainer.two_phase_trainer import TwoPhaseTrainer

    def interrupt(self, *args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(TwoPhaseTrainer, "_generate_phase", interrupt)
        run("TIGER", "Mini", overrides=FEW)
    run("TIGER", "Mini", overrides={**FEW, "resume": "auto"})
    killed, whole = logged_runs(client)
    assert (killed.info.status, whole.info.status) == ("KILLED", "FINISHED")
    for each in (killed, whole):
        points = client.get_metric_history(each.info.run_id, "tokenize/total")
        assert [p.step for p in points] == [0, 1]


@pytest.mark.slow
def test_a_service_that_fails_later_does_not_end_the_training(client, monkeypatch, caplog):
    def fail(*args, **kwargs):
        raise mlflow.exceptions.MlflowException("out of reach")

    monkeypatch.setattr(mlflow.tracking.MlflowClient, "log_batch", fail)
    result = run("TIGER", "Mini", overrides=FEW)
    assert result["test_result"]
    assert caplog.text.count("nothing more is logged there: out of reach") == 1


def test_a_service_that_does_not_answer_is_one_error(client, monkeypatch, tmp_path):
    (tmp_path / "closed").write_text("a file")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/closed")
    with pytest.raises(UserError, match="`log_mlflow` is Trials.*does not answer.*TRACKING_URI"):
        run(
            "ItemNeighbours",
            "Mini",
            overrides={"data_path": TINY["data_path"], "log_mlflow": "Trials"},
        )
