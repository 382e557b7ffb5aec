"""Runs of two processes against runs of one: losses, metrics, files, a death, a resumption."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from recbole_bbqrec.config.config import options_read
from recbole_bbqrec.quick_start import load_data_and_model, run
from recbole_bbqrec.run_files.epochs import read_epochs
from recbole_bbqrec.run_files.per_user import PerUser, recorded
from recbole_bbqrec.trainer.registry import get_trainer_class
from recbole_bbqrec.trainer.shared_work import no_tensorboard
from tests.support.contract import DROPOUTS, options, working_in, write_cut
from tests.support.ranks import torchrun

#: What epochs can be compared: LETTER's codes flip on the rounding of its behaviour embeddings.
MODELS = {"BBQRec": 4, "CoST": 4, "LETTER": 1, "MISSRec": 2, "SASRec": 2}


def job(model: str, data: Path) -> dict:
    """Options without dropout, which draws other numbers in every process."""
    rates = dict.fromkeys(options_read(model, "Mini").intersection(DROPOUTS), 0.0)
    return {**options(model, data), **rates, "eval_batch_size": 16}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_cut(tmp_path_factory.mktemp("cut"))


@pytest.fixture(scope="module")
def pair(tmp_path_factory, data):
    """The folder of runs in two processes, and what each process returned."""
    folder = tmp_path_factory.mktemp("two")
    jobs = [{"name": name, "model": name, "options": job(name, data)} for name in MODELS]
    for name in MODELS:
        (folder / name).mkdir()
    (folder / "jobs.json").write_text(json.dumps(jobs))
    done = torchrun("-m", "tests.support.ranks", folder, folder=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


def files(folder: Path, result: dict) -> dict[str, Path]:
    return {name: folder / path for name, path in result["files"].items()}


@pytest.fixture(scope="module")
def alone(tmp_path_factory, data):
    """Runs of one process, by model, each made when first asked for."""
    made: dict[str, tuple[Path, dict]] = {}

    def of(model: str) -> tuple[Path, dict]:
        if model not in made:
            folder = tmp_path_factory.mktemp(model)
            with working_in(folder):
                made[model] = folder, run(model, "Mini", overrides=job(model, data))
        return made[model]

    return of


@pytest.mark.parametrize("model", MODELS)
def test_losses_of_two_processes_are_those_of_one(model, pair, alone):
    folder, (two, _) = pair
    place, one = alone(model)
    expected = read_epochs(files(place, one)["epochs"])
    found = read_epochs(files(folder / model, two[model])["epochs"])
    assert len(expected) == len(found) >= MODELS[model] > 0
    for mine, whole in list(zip(found, expected))[: MODELS[model]]:
        tolerance = 1e-4 if model == "LETTER" else 1e-5
        assert mine["terms"] == pytest.approx(whole["terms"], rel=tolerance, abs=1e-6)
        assert mine["learning_rate"] == whole["learning_rate"]


@pytest.mark.parametrize("model", ["BBQRec", "SASRec"])
def test_metrics_are_exactly_those_of_one_process_with_the_same_weights(model, pair):
    folder, (first, second) = pair
    result, paths = first[model], files(folder / model, first[model])
    assert first[model]["test_result"] == second[model]["test_result"]
    assert first[model]["best_valid_result"] == second[model]["best_valid_result"]
    with working_in(folder / model):
        config, network, _, train, _, test = load_data_and_model(paths["model"])
        with no_tensorboard():
            trainer = get_trainer_class(model)(config, network)
        trainer.eval_collector.data_collect(train)
        with recorded(trainer) as recorder:
            metrics = trainer.evaluate(test, load_best_model=False)
    assert {name: float(value) for name, value in metrics.items()} == result["test_result"]
    stored = PerUser.load(paths["per_user"])
    expected = recorder.per_user(test._dataset, result["split_hash"], {})
    assert len(test) > 3 and len(stored.users) == len(test._dataset)
    assert np.array_equal(stored.users, expected.users)
    assert np.array_equal(stored.rank, expected.rank)


def test_the_first_process_alone_writes(pair):
    folder, (_, second) = pair
    for model in MODELS:
        place = folder / model
        assert len(list(place.glob(f"saved/{model}-*.pth"))) == 1
        assert len(list(place.glob(f"saved/{model}-*/"))) == 1
        logs, boards = list(place.glob("log/*/*.log")), list(place.glob("log_tensorboard/*"))
        assert len(logs) == len(boards) == 1
        assert "log" not in second[model]["files"]


def test_primitives(pair):
    _, results = pair
    first, second = (result["primitives"] for result in results)
    whole = np.arange(10.0).reshape(5, 2)
    assert first["rows"] == second["rows"] == whole.tolist()
    assert first["gradient"] == [[3.0, 3.0]] * 3 and second["gradient"] == [[3.0, 3.0]] * 2
    assert first["mean"] + second["mean"] == pytest.approx((0 + 1 + 0 + 1 + 2) / 5)
    assert (first["own"], second["own"]) == ([0, 3], [1, 2])
    assert first["gradients"] == second["gradients"] == [[[3.0, 3.0]], None, [1.0]]
    assert first["weight"] == second["weight"] == [[7.0, 7.0]]
    assert first["of main"] == second["of main"] == [0]
    assert first["same"] == second["same"] == {"rank": 0}
    assert first["alone"] == second["alone"] == [False, 0]
    assert first["error"] == second["error"] == "refused in 0"
    assert first["differ"] == second["differ"]
    assert "differ in version: process 1" in first["differ"]


def test_a_process_that_dies_ends_all_and_one_process_goes_on(tmp_path, data, alone):
    (tmp_path / "options.yaml").write_text(yaml.safe_dump(job("BBQRec", data)))
    command = ["run", "--model=BBQRec", "--dataset=Mini", "--config_files=options.yaml"]
    done = torchrun("-m", "tests.support.ranks", *command, folder=tmp_path, DIES="1")
    assert done.returncode != 0
    assert time.time() - float((tmp_path / "killed").read_text()) < 60
    said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(said) == 1 and "--resume=auto" in said[0] and "another process" in said[0].lower()
    with working_in(tmp_path):
        result = run("BBQRec", "Mini", ["options.yaml"], {"resume": "auto"})
        paths = files(tmp_path, result)
    assert len(list(tmp_path.glob("saved/BBQRec-*/"))) == 1  # the run that was begun
    place, one = alone("BBQRec")
    lines, expected = read_epochs(paths["epochs"]), read_epochs(files(place, one)["epochs"])
    for found, whole in zip(lines, expected):
        assert found["terms"] == pytest.approx(whole["terms"], rel=1e-5, abs=1e-6)
    assert result["test_result"] == one["test_result"]
