"""The command line: user errors end with one message and exit code 2, before work starts."""

from __future__ import annotations

import errno
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from recbole_bbqrec.cli.main import main
from recbole_bbqrec.run_files.checkpoint import save_checkpoint

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def command(tiny):
    """Arguments of the tiny run."""
    return ["run", "--model=BBQRec", "--dataset=Mini", *(f"--{k}={v}" for k, v in tiny.items())]


@pytest.fixture
def own_mini(rundir, tiny):
    """A copy of Mini that a test may damage."""
    shutil.copytree(Path(tiny["data_path"]) / "Mini", rundir / "data" / "Mini")
    return rundir / "data" / "Mini"


def fails(arguments, capsys, *words):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1, "one message, one line"
    for word in words:
        assert word in error


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--dataset=Nowhere"], ["Nowhere.inter", "prepare"]),
        (["--dataset=Minni"], ["Minni.inter", "Did you mean `Mini`?"]),
        (["--model=BBQReck"], ["BBQReck", "`BBQRec`"]),
        (["--num_beans=3"], ["num_beans", "num_beams"]),
        (["--num_beams"], ["--num_beams", "--key=value"]),
        (["--num_beams=5"], ["num_beams", "10"]),
        (["--config_files=absent.yaml"], ["absent.yaml"]),
        (["--tokenizer_path=absent.safetensors"], ["absent.safetensors"]),
        (["--resume=absent"], ["absent", "resume"]),
        (["--modalities=[text, sound]"], ["Mini.sound.npy", "modalities"]),
        (["--learner=sgdd"], ["learner", "adamw"]),
        (["--data_path=" + __file__, "--prepare=True"], ["test_cli.py is a file", "folder"]),
        (["--eval_args={'order': 'RO'}"], ["`eval_args`", "'TO'"]),
        (["--topk=[3]"], ["`valid_metric` is NDCG@10", "--valid_metric=NDCG@3"]),
        (["--load_col={'inter': ['user_id', 'item_id']}"], ["Mini.inter", "timestamp:float"]),
    ],
)
def test_user_errors(command, rundir, capsys, extra, words):
    given = {word.split("=")[0] for word in extra}
    kept = [word for word in command if word.split("=")[0] not in given]
    fails([*kept, *extra], capsys, *words)


def test_missing_model_and_dataset(rundir, capsys):
    fails(["run", "--dataset=Mini"], capsys, "--model")
    fails(["run", "--model=SASRec"], capsys, "--dataset")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda d: (d / "Mini.text.npy").unlink(), ["Mini.text.npy"]),
        (lambda d: (d / "Mini.text.items.txt").unlink(), ["Mini.text.items.txt"]),
        (lambda d: np.save(d / "Mini.text.npy", np.zeros((3, 4), "f4")), ["Mini.text"]),
        (
            lambda d: np.save(d / "Mini.image.npy", np.full((391, 64), np.nan, "f4")),
            ["Mini.image", "finite"],
        ),
        (
            lambda d: (d / "Mini.text.items.txt").write_text("a\n" * 398),
            ["Mini.text.items.txt", "'a'"],
        ),
        (lambda d: (d / "Mini.inter").write_text("user_id:token\titem_id:token\n"), ["Mini"]),
    ],
)
def test_damaged_data(command, own_mini, capsys, damage, words):
    damage(own_mini)
    fails([*command[:3], *command[4:], f"--data_path={own_mini.parent}"], capsys, *words)
    assert not list(Path("saved").glob("*/*")) if Path("saved").exists() else True


def test_truncated_checkpoint(command, rundir, capsys):
    path = rundir / "saved" / "BBQRec-x" / "resume.pth"
    save_checkpoint({"config": "model: BBQRec\ndataset: Mini\n"}, path)
    path.write_bytes(path.read_bytes()[:100])
    fails([*command, f"--resume={path}"], capsys, "resume.pth", "truncated")


def test_no_verb_prints_help(capsys):
    assert main([]) == 2
    assert "prepare" in capsys.readouterr().out


@pytest.mark.parametrize("buffer", [0, 1 << 20])  # python -u; all is written at the end
def test_output_that_nobody_reads(monkeypatch, capsys, buffer):
    """A reader such as ``head`` ends early: no traceback, not when the stream is closed either."""
    reader, writer = os.pipe()
    os.close(reader)
    pipe = os.fdopen(writer, "wb", buffer)
    with io.TextIOWrapper(pipe, write_through=True) as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert main(["models"]) == 141
    assert capsys.readouterr().err == ""


def test_without_standard_output(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)  # as in `python -m recbole_bbqrec models >&-`
    assert main(["models"]) == 0


def test_another_broken_pipe_is_not_hidden(monkeypatch):
    def lose_a_worker(*_):
        raise BrokenPipeError("a worker's")

    monkeypatch.setattr("recbole_bbqrec.cli.models.main", lose_a_worker)
    with pytest.raises(BrokenPipeError, match="a worker's"):
        main(["models"])


@pytest.mark.slow
def test_script_runs_quietly(tiny, tmp_path):
    """The documented script, in its own process: final block, and no warnings on the way."""
    arguments = [f"--{k}={v}" for k, v in tiny.items() if k != "state"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "run_recbole_bbqrec.py"), "--model=BBQRec", "--dataset=Mini",
         *arguments],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    output = done.stdout + done.stderr
    assert "Warning" not in output
    for part in ("test recall@10", "test ndcg@5", "split", "peak process", "file model"):
        assert part in output
    assert list((tmp_path / "log" / "BBQRec").glob("BBQRec-Mini-*.log"))
    assert list((tmp_path / "log_tensorboard").glob("BBQRec-Mini-*/events*"))
    assert list((tmp_path / "saved").glob("BBQRec-*.pth"))


@pytest.mark.parametrize("name", ["log", "log_tensorboard"])
def test_log_folders_that_cannot_be_written_are_refused_first(command, rundir, capsys, name):
    Path(name).write_text("mine")
    fails(command, capsys, f"the folder {name} of the working directory", "is a file")
    assert Path(name).read_text() == "mine" and not Path("saved").exists()


def test_a_full_disk_is_refused_first(command, rundir, capsys, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=0))
    fails(command, capsys, "`checkpoint_dir`", "no space is left on the disk")
    assert not list(rundir.iterdir())


@pytest.mark.parametrize("words", [["compare", "--models=SASRec", "--datasets=Mini"],
                                   ["evaluate", "saved/none"]])  # fmt: skip
def test_an_output_that_cannot_be_written_is_refused_first(rundir, capsys, words):
    Path("taken").write_text("")
    fails([*words, "--output=taken/below"], capsys, "`--output`", "taken is a file")


@pytest.mark.parametrize(
    ("number", "shown"), [(errno.ENOSPC, "No space left"), (errno.EACCES, "Permission denied")]
)
def test_what_the_system_refuses_anywhere_is_a_message(capsys, monkeypatch, number, shown):
    def refuse(args):
        raise OSError(number, os.strerror(number), "place")

    monkeypatch.setattr("recbole_bbqrec.cli.models.main", refuse)
    fails(["models"], capsys, "place", shown)


def test_other_errors_of_the_system_are_faults_of_ours(monkeypatch):
    def miss(args):
        raise FileNotFoundError("nowhere")

    monkeypatch.setattr("recbole_bbqrec.cli.models.main", miss)
    with pytest.raises(FileNotFoundError):
        main(["models"])
