"""The run store: what counts in a key, resumption after a kill, failures, locks."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.experiment.store import run_key, worker
from recbole_bbqrec.experiment.store.launch import OneAfterAnother
from recbole_bbqrec.experiment.store.progress import Progress, duration
from recbole_bbqrec.experiment.store.run_key import counted_options
from recbole_bbqrec.experiment.store.store import Run, RunStore
from recbole_bbqrec.experiment.store.worker import (
    CONFIG,
    FAILED,
    FAILURE,
    INTERRUPTED,
    LOCK,
    PLAN,
    RESULT,
)
from recbole_bbqrec.quick_start import run as run_here

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = {
    "data_path": str(ROOT / "dataset"), "embedding_size": 16, "hidden_size": 16, "epochs": 1,
    "train_batch_size": 512, "num_threads": 1,
}  # fmt: skip


def gru(**options):
    return Run("GRU4Rec", "Mini", {**OPTIONS, **options}, seed=2020)


def with_seeds(run, seeds):
    return [replace(run, seed=seed) for seed in seeds]


BLANK = {"test_result": {}}  # what every result has


@pytest.fixture
def store(tmp_path):
    return RunStore(tmp_path / "runs", echo=lambda line: None)


@pytest.fixture
def finish(store, monkeypatch):
    """Runs end at once with the result that the given function makes of the planned run."""

    def use(result_of):
        def process(self, directory, stop):
            plan = json.loads((directory / PLAN).read_text())
            result = result_of(plan)
            if result is None:
                return 1
            (directory / RESULT).write_text(json.dumps({**BLANK, **result, "run": plan}))
            return 0

        monkeypatch.setattr(OneAfterAnother, "_process", process)

    return use


# the key --------------------------------------------------------------------------------------


@pytest.fixture
def own_data(tmp_path):
    """A copy of Mini that a test may change."""
    shutil.copytree(ROOT / "dataset" / "Mini", tmp_path / "data" / "Mini")
    return tmp_path / "data"


def test_same_run_same_key(store, own_data, tmp_path, monkeypatch):
    key = store.plan(gru()).key
    file = tmp_path / "more.yaml"
    file.write_text("epochs: 1\nhidden_size: 16\n")
    options = {k: v for k, v in OPTIONS.items() if k not in ("epochs", "hidden_size")}
    assert store.plan(Run("GRU4Rec", "Mini", options, (file,), seed=2020)).key == key
    assert store.plan(gru(data_path=str(own_data))).key == key
    assert store.plan(gru(show_progress=False, checkpoint_dir="x", num_threads=2)).key == key
    monkeypatch.chdir(ROOT)
    assert store.plan(gru(data_path="dataset")).key == key


@pytest.mark.parametrize(
    "other",
    [{"epochs": 2}, {"mask_history": True}, {"dropout_prob": 0.0}, {"topk": [10]},
     {"eval_batch_size": 2048}],
)  # fmt: skip
def test_options_count(store, other):
    one, two = store.plan(gru()), store.plan(gru(**other))
    assert one.key.config != two.key.config and one.directory != two.directory
    assert one.key.data == two.key.data and one.key.code == two.key.code


def test_seed_and_stage_count(store):
    keys = {store.plan(run).key.key for run in with_seeds(gru(), [1, 2])}
    assert len(keys) == 2
    assert store.plan(Run("GRU4Rec", "Mini", OPTIONS, seed=1, test=False)).key.key not in keys


@pytest.mark.slow
def test_data_counts(store, own_data):
    run = gru(data_path=str(own_data))
    fused = Run("MMGRU4Rec", "Mini", run.overrides)
    before, fused_before = store.plan(run), store.plan(fused)
    features = own_data / "Mini" / "Mini.text.npy"
    features.write_bytes(features.read_bytes()[:-1] + b"\x01")
    changed = store.plan(fused)
    assert changed.key.data != fused_before.key.data
    assert changed.split_hash == fused_before.split_hash == before.split_hash
    assert store.plan(run).key == before.key  # it reads no features
    assert store.plan(gru(modalities=["text"])).key == store.plan(gru()).key
    lines = (own_data / "Mini" / "Mini.inter").read_text().splitlines(keepends=True)
    user = lines[1].split("\t")[0]
    kept = [line for line in lines if line.split("\t")[0] != user]
    (own_data / "Mini" / "Mini.inter").write_text("".join(kept))
    assert store.plan(run).split_hash != before.split_hash


@pytest.mark.slow
def test_absent_data_are_made_where_that_takes_nothing(store, tmp_path):
    options = gru(data_path=str(tmp_path)).overrides
    with pytest.raises(UserError, match="Shop"):
        store.plan(Run("GRU4Rec", "Shop", options))
    assert not list(tmp_path.iterdir())
    assert store.plan(gru(data_path=str(tmp_path))).key == store.plan(gru()).key


@pytest.mark.slow
def test_split_hash_is_that_of_the_run(store, rundir, tiny):
    planned = store.plan(gru())
    assert (
        run_here("GRU4Rec", "Mini", overrides={**OPTIONS, "state": "ERROR"})["split_hash"]
        == planned.split_hash
    )


@pytest.mark.slow
def test_tokenizer_file_counts_by_content(store, tmp_path, tiny):
    keys = []
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).write_bytes(content)
        options = {**tiny, "tokenizer_path": str(tmp_path / name)}
        keys.append(store.plan(Run("TIGER", "Mini", options)).key.key)
    assert keys[0] == keys[1] != keys[2]
    with pytest.raises(UserError, match="absent"):
        store.plan(Run("TIGER", "Mini", {**tiny, "tokenizer_path": "absent"}))


def test_other_code_runs_again_unless_any_version(store, finish, monkeypatch):
    finish(lambda plan: {"made_by": plan["key"]["code"]})
    (first,) = store.ensure([gru()])
    monkeypatch.setattr(run_key, "code_version", lambda: "9.9.9+changed")
    assert store.find(gru()) is None
    tolerant = RunStore(store.root, any_version=True)
    assert tolerant.find(gru()).result == first.result
    assert tolerant.find(gru(epochs=2)) is None
    (second,) = store.ensure([gru()])
    assert second.result["made_by"] == "9.9.9+changed" and first.directory.is_dir()


def test_code_version_hashes_what_takes_part_in_a_run(tmp_path, monkeypatch):
    package = tmp_path / "package"
    for room in ("experiment/comparison", "experiment/store", "cli", "prepare", "inspection", "nn"):
        (package / room).mkdir(parents=True)
    monkeypatch.setattr(run_key, "__file__", str(package / "experiment" / "store" / "run_key.py"))

    def version(name, text):
        (package / name).write_text(text)
        run_key._source_hash.cache_clear()
        return run_key.code_version()

    first = version("model.py", "a = 1")
    assert version("experiment/comparison/tables.py", "b = 1") == first
    for name in ("cli/run.py", "prepare/text.py", "inspection/plot.py", "__main__.py"):
        assert version(name, "b = 1") == first
    assert version("model.py", "a = 2") != first
    first = version("model.py", "a = 1")
    assert version("nn/topk.py", "a = 2") != first
    run_key._source_hash.cache_clear()


# ensure ---------------------------------------------------------------------------------------


def test_impossible_runs_are_refused_before_any_starts(store, finish):
    finish(lambda plan: pytest.fail("nothing may run"))
    for bad, word in [
        (Run("GRU5Rec", "Mini", OPTIONS), "GRU4Rec"),
        (Run("GRU4Rec", "Minni", OPTIONS), "Minni"),
        (gru(hiden_size=3), "hidden_size"),
        (gru(resume="auto"), "resume"),
    ]:
        with pytest.raises(UserError, match=word):
            store.ensure([gru(), bad])


@pytest.mark.slow
def test_missing_features_are_refused_before_any_run_starts(store, finish, own_data):
    finish(lambda plan: pytest.fail("nothing may run"))
    options = {"data_path": str(own_data)}
    store.plan(Run("MMGRU4Rec", "Mini", options))
    (own_data / "Mini" / "Mini.image.npy").unlink()
    reads, reads_not = Run("BBQRec", "Mini", options), gru(**options)
    with pytest.raises(UserError, match=r"'image'.*Mini\.image\.npy not found.*modalities"):
        store.ensure([reads_not, reads])
    store.plan(reads_not)
    store.plan(Run("BBQRec", "Mini", {**options, "modalities": ["text"]}))


@pytest.mark.slow
def test_finished_runs_are_not_repeated_and_failed_ones_are(store, finish):
    done = []

    def result_of(plan):
        done.append(plan["seed"])
        return None if plan["seed"] == 2 and done.count(2) == 1 else {"seed": plan["seed"]}

    finish(result_of)
    runs = with_seeds(gru(), [1, 2, 3, 1])
    outcomes = store.ensure(runs)
    assert [o.finished for o in outcomes] == [True, False, True, True]
    assert outcomes[1].error and outcomes[1].log.name == "run.log"
    assert all(o.finished for o in store.ensure(runs))
    assert done == [1, 2, 3, 2]


def test_lines_of_progress(tmp_path, finish):
    finish(lambda plan: {} if plan["seed"] != 2 else None)
    lines = []
    RunStore(tmp_path / "runs", echo=lines.append).ensure(with_seeds(gru(), [1, 2]))
    assert lines[0].startswith("[1/2] GRU4Rec Mini seed 1: running, log in ")
    assert lines[1].startswith("[1/2] done in 0 s, about 0 s to go")
    assert lines[3].startswith("[2/2] FAILED in 0 s: The process ended with exit code 1")
    assert [duration(s) for s in (59.4, 200, 7500)] == ["59 s", "3 min 20 s", "2 h 5 min"]
    said = []
    progress = Progress(said.append, total=3)
    progress.add_known("A", "X", {"seconds": {"prepare": 1, "train": 8, "test": 1, "tokenize": 5}})
    progress.finish("B X", "B", "X", 50.0, None, pending=[("A", "X"), ("C", "X")])
    assert said == ["[1/3] done in 50 s, about 40 s to go"]  # 10, and the mean of 10 and 50


# real processes -------------------------------------------------------------------------------


@pytest.mark.slow
def test_killed_runs_go_on(store):
    """SIGKILL to the worker: a failure that names the signal; then resumption, not repetition."""
    planned = store.plan(gru(epochs=15, stopping_step=100))

    def kill_after_an_epoch():
        while not (found := list(planned.directory.glob("saved/*/resume.pth"))):
            time.sleep(0.02)
        first = found[0].stat().st_mtime_ns
        while found[0].stat().st_mtime_ns == first:
            time.sleep(0.005)
        os.kill(workers[0], signal.SIGKILL)

    workers, popen = [], subprocess.Popen

    class Watched(popen):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            workers.append(self.pid)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", Watched)
        killer = threading.Thread(target=kill_after_an_epoch, daemon=True)
        killer.start()
        (killed,) = store.ensure([planned])
        killer.join()
    assert killed.error == "The process was killed by signal 9." and not killed.finished

    (outcome,) = store.ensure([planned])
    assert outcome.finished, outcome.log.read_text()
    log = outcome.log.read_text()
    assert "Resuming" in log and "test result" in log
    assert len(list(outcome.directory.glob("saved/*.pth"))) == 1
    assert not list(outcome.directory.rglob("resume.pth"))
    result = outcome.result
    assert result["run"]["split_hash"] == result["split_hash"]
    assert result["trainable_parameters"] > 1000 and result["peak_memory_mib"]["process"] > 10
    assert outcome.file("model").is_file()
    recall = outcome.per_user.metrics["recall@10"].mean()
    assert recall == pytest.approx(result["test_result"]["recall@10"], abs=1e-6)
    with pytest.raises(UserError, match="semantic_ids"):
        outcome.file("semantic_ids")


@pytest.mark.slow
def test_worker_ends_when_the_store_is_gone(store):
    """A worker's standard input closes when the store dies; the lock is free afterwards."""
    planned = store.plan(gru(epochs=400, stopping_step=1000))
    write_plan(planned)
    process = subprocess.Popen(
        [sys.executable, "-m", "recbole_bbqrec.experiment.store.worker", str(planned.directory)],
        cwd=planned.directory, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while not list(planned.directory.glob("saved/*/resume.pth")):
            assert process.poll() is None
            time.sleep(0.02)
        process.stdin.close()
        assert process.wait(60) == INTERRUPTED
    finally:
        process.kill()
    with FileLock(str(planned.directory / LOCK), timeout=0):
        assert not (planned.directory / RESULT).is_file()


# the worker in this process -------------------------------------------------------------------


@pytest.fixture
def work_here(monkeypatch):
    """The worker's main on a planned run, in this process."""

    def use(planned):
        write_plan(planned)
        monkeypatch.chdir(planned.directory)
        monkeypatch.setattr(sys, "argv", ["worker", str(planned.directory)])
        monkeypatch.setattr(worker, "_end_with_parent", lambda: None)
        return worker.main()

    return use


def write_plan(planned):
    planned.directory.mkdir(parents=True, exist_ok=True)
    (planned.directory / PLAN).write_text(json.dumps(planned.plan()))
    (planned.directory / CONFIG).write_text(planned.config.to_text())


def error_of(planned):
    return (planned.directory / FAILURE).read_text()


def test_two_processes_never_share_a_run(store, work_here):
    planned = store.plan(gru())
    planned.directory.parent.mkdir(parents=True)
    lock = FileLock(str(planned.directory / LOCK))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "run", lambda *args, **kwargs: lock.acquire(timeout=0))
        assert work_here(planned) == FAILED  # the lock is held while the run goes on
    assert "Timeout" in error_of(planned)
    with lock, pytest.raises(UserError, match="Another process"):
        worker.work(planned.directory)


@pytest.mark.slow
def test_failure_inside_a_run_is_told(store, work_here):
    """An error that only the run itself can meet: the data vanish between plan and start."""
    planned = store.plan(gru())
    (store.root / "emptied" / "Mini").mkdir(parents=True)
    planned.config.resolved["data_path"] = str(store.root / "emptied")
    assert work_here(planned) == FAILED
    assert "Mini.inter" in error_of(planned)


def test_a_planned_configuration_is_taken_whatever_it_holds(
    store, work_here, monkeypatch, tmp_path
):
    """Options of other models in a config file are in no plan, and no error."""
    file = tmp_path / "for-all.yaml"
    file.write_text("n_heads: 4\nprecision: bfloat16\n")
    planned = store.plan(Run("GRU4Rec", "Mini", OPTIONS, (file,)))
    taken = []

    def run(model, dataset, config_files, overrides, test):
        taken.append(BBQRecConfig(model, dataset, config_files, overrides).resolved)
        return {"split_hash": planned.split_hash, "files": {}}

    monkeypatch.setattr(worker, "run", run)
    assert work_here(planned) == 0
    assert counted_options(taken[0]) == counted_options(planned.config.resolved)
    assert "n_heads" not in taken[0] and taken[0]["resume"] == "auto"
    assert planned.key == store.plan(Run("GRU4Rec", "Mini", OPTIONS)).key


def test_another_split_than_planned_is_refused(store, work_here, monkeypatch):
    monkeypatch.setattr(
        worker, "run", lambda *args, **kwargs: {"split_hash": "changed", "files": {}}
    )
    planned = store.plan(gru())
    assert work_here(planned) == FAILED
    assert "changed" in error_of(planned) and planned.split_hash in error_of(planned)


def test_killed_before_the_last_write(store, work_here, monkeypatch):
    """The run itself had finished: its result is taken, and it is not run again."""
    planned = store.plan(gru())
    inner = planned.directory / "saved" / "GRU4Rec-then"
    inner.mkdir(parents=True)
    (inner / "result.json").write_text(json.dumps({**BLANK, "split_hash": planned.split_hash}))
    (inner.parent / "GRU4Rec-then.pth").write_bytes(b"weights")
    left = [planned.directory / ".result.json.abcdefgh.tmp", inner / ".resume.pth.12345678.tmp"]
    for path in left:
        path.write_text("half")
    monkeypatch.setattr(worker, "run", lambda *args, **kwargs: pytest.fail("ran again"))
    assert work_here(planned) == 0
    assert store.find(planned).file("model").read_bytes() == b"weights"
    assert not any(path.exists() for path in left)


@pytest.mark.parametrize("content", [b"", b"0123", b"\xff" * 16, b"0123456789abcdeg"])
def test_a_damaged_hash_of_a_split_is_made_again(store, content):
    expected = store.plan(gru()).split_hash
    (cached,) = (store.root / ".splits").iterdir()
    cached.write_bytes(content)
    assert store.plan(gru()).split_hash == expected
    assert cached.read_text() == expected


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"files": {}}', b"[" * 9999])
def test_a_damaged_result_is_named_with_what_to_remove(store, content):
    planned = store.plan(gru())
    planned.directory.mkdir(parents=True)
    (planned.directory / RESULT).write_bytes(content)
    with pytest.raises(UserError, match=f"result.json .*Remove {planned.directory}"):
        store.find(planned)
