"""Runs over Ray: its errors, and two real runs at the same time on a Ray of this machine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from recbole_bbqrec.cli.main import main
from recbole_bbqrec.errors import UserError, pip_install
from recbole_bbqrec.experiment.store import ray_cluster
from recbole_bbqrec.experiment.store.ray_cluster import RayCluster, RunNeeds
from recbole_bbqrec.experiment.store.store import RunStore
from recbole_bbqrec.quick_start import run as run_here

from .test_run_store import gru, with_seeds

ROOT = Path(__file__).resolve().parents[2]


def compare(*words):
    return main([
        "compare", "--models=GRU4Rec", "--datasets=Mini", f"--data_path={ROOT / 'dataset'}", *words
    ])  # fmt: skip


def test_ray_absent(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert compare("--ray") == 2
    assert pip_install("ray") in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ray_cpus=2"], "needs --ray"),
        (["--ray", "--ray_cpus=0"], "above 0"),
        (["--ray", "--ray_memory=-1"], "above 0"),
    ],
)
def test_arguments(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert compare(*words) == 2
    assert message in capsys.readouterr().err


def test_room():
    node = {"CPU": 8.0, "GPU": 2.0, "memory": 64.0 * 2**30}
    assert ray_cluster._room(RunNeeds(cpus=2), node) == 4
    assert ray_cluster._room(RunNeeds(cpus=1, gpus=0.5), node) == 4
    assert ray_cluster._room(RunNeeds(cpus=1, memory=24 * 2**30), node) == 2
    assert ray_cluster._room(RunNeeds(gpus=1), {"CPU": 8.0}) == 0
    message = ray_cluster._no_room(RunNeeds(gpus=1), [{"CPU": 8.0, "memory": 2.0**30}])
    assert "1 GPUs" in message and "8 CPUs, 0 GPUs, 1.0 GiB" in message


@pytest.fixture(scope="module")
def local_ray():
    ray = pytest.importorskip("ray", reason="RecBole brings it where its pin has a wheel")
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=80 * 2**20)
    yield ray
    ray.shutdown()


@pytest.mark.slow
def test_runs_at_the_same_time(local_ray, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cluster = RayCluster("local", tmp_path / "runs", RunNeeds())
    assert cluster.slots == 2
    lines = []
    store = RunStore(tmp_path / "runs", launcher=cluster, echo=lines.append)
    outcomes = store.ensure(with_seeds(gru(), [1, 2]))
    assert [outcome.error for outcome in outcomes] == [None] * 2
    # both were started before the first ended
    assert [line.split("]")[0] for line in lines[:2]] == ["[1/2", "[2/2"]
    assert all("running" in line for line in lines[:2]) and "done" in lines[2]
    here = run_here("GRU4Rec", "Mini", overrides={**gru().overrides, "seed": 2}, saved=False)
    assert outcomes[1].metrics == here["test_result"]


@pytest.mark.slow
def test_a_cluster_that_cannot_serve(local_ray, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="No node of the Ray cluster has what a run needs"):
        RayCluster("local", tmp_path, RunNeeds(gpus=8))
    monkeypatch.setattr(ray_cluster, "code_version", lambda: "another")
    with pytest.raises(UserError, match="another version of recbole_bbqrec"):
        RayCluster("local", tmp_path, RunNeeds())
    monkeypatch.undo()
    monkeypatch.setattr(ray_cluster, "write_text", lambda path, text: path.symlink_to("nowhere"))
    with pytest.raises(UserError, match="does not see the run store"):
        RayCluster("local", tmp_path, RunNeeds())
