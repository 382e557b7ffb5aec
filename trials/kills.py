"""Killed processes: the same command again ends in the result of an uninterrupted one, bit for bit.

Cases go round the verbs (`--verbs=run,prepare` takes some). Half of them are killed at a random
moment, the whole verb or only its first process; the others in the k-th write of a file or folder,
before or after it is put in its place. Half are killed a second time. Then the command is given
again and left alone. Compared are weights, semantic IDs, metrics, each user's metrics and the
epochs' lines of a run (but for seconds and memory), the tables of `compare` and `tune`, and the
bytes of the other verbs' files. No temporary file may be left, and the finished run that a verb
reads must keep its bytes.

Each case is a fork of one process that has imported everything, so that kills meet the work and not
the imports. Prints one row a verb; exits with 1 if a case differs, fails or leaves something.
"""

from __future__ import annotations

import csv
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from common import TINY, arguments, digest, environment, machine, write_options

from recbole_bbqrec.atomic import sha256_of
from recbole_bbqrec.run_files.checkpoint import load_checkpoint
from recbole_bbqrec.run_files.epochs import read_epochs
from recbole_bbqrec.run_files.finished_run import FinishedRun
from recbole_bbqrec.run_files.per_user import PerUser
from recbole_bbqrec.tokenizer.semantic_ids import SemanticIds

PASSING = ("seconds", "peak_memory_mib")  # what no two runs share
WRITES = 14  # of a run, the last of which is its result
PLACES = ("saved", "runs", "out", "data")  # where the verbs write, beside the files named out
KIND = multiprocessing.get_context("fork")
#: Verbs that refuse what they have made; a case that ended before the kill is whole.
REFUSED = "exists"


@dataclass
class Verb:
    """A verb: its command, what it leaves of worth, and its writes at most."""

    words: list[str]
    found: Callable[[Path], Any]
    writes: int = 3
    seconds: float = 0.0
    expected: str = ""
    counts: Counter[str] = field(default_factory=Counter)


def of_run(folder: Path) -> Any:
    """Return what the finished run in ``folder`` holds; several, if they differ.

    A run that was killed after its result was written has ended: the command then makes another.
    """
    runs = [of_directory(path.parent) for path in sorted(folder.glob("saved/*/result.json"))]
    return runs[0] if len({digest(run) for run in runs}) == 1 else runs


def of_directory(directory: Path) -> Any:
    """Return what a finished run holds."""
    run = FinishedRun.at(directory)
    users = vars(PerUser.load(run.files.per_user))
    lines = [{k: v for k, v in line.items() if k not in PASSING} for line in run.epochs]
    assert lines == [
        {k: v for k, v in line.items() if k not in PASSING}
        for line in read_epochs(run.files.epochs)
    ]
    model = load_checkpoint(run.files.model)
    metrics = [run.result[key] for key in ("test_result", "best_valid_result", "split_hash")]
    tokenizer = load_checkpoint(run.files.tokenizer_network)["state_dict"]
    ids = vars(SemanticIds.load(run.files.semantic_ids))
    return metrics, lines, users, model["state_dict"], tokenizer, ids


def of_evaluate(folder: Path) -> Any:
    """Return the table, but for its seconds, and the bytes of the other files."""
    files = content_of(folder / "out")
    del files["evaluation.csv"]
    return rows_of(folder / "out" / "evaluation.csv", "seconds"), files


def rows_of(path: Path, *without: str) -> list[dict[str, str]]:
    """Return the rows of a table, but for some columns."""
    with open(path, newline="") as file:
        return [{k: v for k, v in row.items() if k not in without} for row in csv.DictReader(file)]


def of_compare(folder: Path) -> Any:
    """Return the table of metrics and each user's metrics."""
    with open(folder / "out" / "results.csv", newline="") as file:
        rows = [(row["model"], row["metric"], row["mean"]) for row in csv.DictReader(file)]
    users = sorted(folder.glob("runs/Mini/*/*/saved/*/per_user.npz"))
    return rows, [vars(PerUser.load(path)) for path in users]


def of_tune(folder: Path) -> Any:
    """Return best.yaml and the trials, but for their seconds and folders."""
    rows = rows_of(folder / "out" / "trials.csv", "train_seconds", "run")
    return (folder / "out" / "best.yaml").read_text("utf-8"), rows


def of_folder(name: str) -> Callable[[Path], Any]:
    """Return what reads the bytes of all files in a folder."""
    return lambda folder: content_of(folder / name)


def content_of(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file in a folder, by its path there."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): sha256_of(path) for path in files}


def verbs(folder: Path) -> dict[str, Verb]:
    """Write the inputs of the verbs and return them."""
    options = write_options(folder)
    events = (Path(TINY["data_path"]) / "Mini" / "Mini.inter").read_text().splitlines()[1:]
    rows = [",".join(line.split("\t")[:3]) for line in events]
    (folder / "events.csv").write_text("\n".join(["user_id,item_id,timestamp", *rows]) + "\n")
    (folder / "space.txt").write_text("learning_rate choice [0.003,0.001]\n")
    draws = np.random.default_rng(0)
    for name in ("text", "image"):
        np.save(folder / f"{name}.npy", draws.standard_normal((5, 64)).astype(np.float32))
    (folder / "new.txt").write_text("".join(f"n{row}\n" for row in range(5)))
    new = [f"--features={m}={folder / m}.npy,{folder / 'new.txt'}" for m in ("text", "image")]
    (folder / "day.csv").write_text(
        "user_id,item_id,timestamp\n" + "".join(f"u{n:04d},n{n % 5},90\n" for n in range(1, 60))
    )

    train = ["run", "--model=BBQRec", "--dataset=Mini", f"--config_files={options}"]
    compare = ["compare", "--models=SASRec,GRU4Rec", "--datasets=Mini", "--seeds=1", "--epochs=2"]
    small = [f"--data_path={TINY['data_path']}", "--hidden_size=16", "--inner_size=16"]
    small += ["--num_threads=1"]
    made = ["prepare", "Own", f"--interactions={folder / 'events.csv'}", "--data_path=data"]
    tune = ["tune", "--model=SASRec", "--dataset=Mini", f"--params={folder / 'space.txt'}"]
    base = str(folder / "base" / "run")
    return {
        "run": Verb([*train, "--resume=auto"], of_run, WRITES),
        "compare": Verb([*compare, *small, "--output=out"], of_compare, 10),
        "prepare": Verb(made, of_folder("data/Own")),
        "prepare --force": Verb([*made, "--force"], of_folder("data/Own")),
        "tune": Verb([*tune, *small, "--epochs=2", "--output=out"], of_tune, 8),
        "recommend": Verb(["recommend", base, "--output=out/recs.csv"], of_folder("out"), 5),
        "evaluate": Verb(["evaluate", base, "--output=out"], of_evaluate),
        "report": Verb(["report", base, "--output=out", "--pictures=svg"], of_folder("out"), 8),
        "export": Verb(["export", base, "--output=out/exported"], of_folder("out"), 1),
        "add_items": Verb(
            ["add_items", base, *new, "--output=out/more"],
            lambda folder: of_directory(folder / "out" / "more"), 9,
        ),
        "update": Verb(
            ["update", base, f"--interactions={folder / 'day.csv'}", *new, "--output=out/newer"],
            lambda folder: of_directory(folder / "out" / "newer"), 40,
        ),
    }  # fmt: skip


def start(words: list[str], folder: Path, place: tuple[int, bool] | None = None) -> Any:
    """Start a command in a process group of its own; ``place`` is the write in which it dies."""
    process = KIND.Process(target=_command, args=(words, folder, place))
    process.start()
    return process


def _command(words: list[str], folder: Path, place: tuple[int, bool] | None) -> None:
    os.setsid()
    os.chdir(folder)
    os.environ.update(environment())
    log = os.open(folder.with_suffix(".log"), os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if place is not None:
        _die_in_a_write(*place)
    from recbole_bbqrec.cli.main import main

    sys.exit(main(words))


def _die_in_a_write(number: int, before: bool) -> None:
    done = 0

    def dying(put: Callable[..., None]) -> Callable[..., None]:
        def replace(*names: Any) -> None:
            nonlocal done
            done += 1
            if done == number and before:
                os.kill(os.getpid(), signal.SIGKILL)
            put(*names)
            if done == number:
                os.kill(os.getpid(), signal.SIGKILL)

        return replace

    for name in ("replace", "rename"):
        setattr(os, name, dying(getattr(os, name)))


def finish(words: list[str], folder: Path) -> str:
    """Run a command to its end and return how it failed, empty if it did not."""
    process = start(words, folder)
    process.join()
    text = folder.with_suffix(".log").read_text("utf-8", errors="replace")
    return "" if process.exitcode == 0 else text[-2000:]


def kill(verb: Verb, folder: Path, rng: random.Random) -> bool:
    """Start the verb and kill it; return False if it had ended before."""
    if rng.random() < 0.5:
        place = (rng.randint(1, verb.writes), rng.random() < 0.5)
        process = start(verb.words, folder, place)
        process.join()
        return process.exitcode == -signal.SIGKILL
    process = start(verb.words, folder)
    process.join(rng.uniform(0, 1) * verb.seconds)
    if process.exitcode is not None:
        return False
    whole = rng.random() < 0.5
    if whole:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()  # a worker sees that its parent is gone
    process.join()
    time.sleep(0 if whole else 1)
    return True


def left_over(folder: Path) -> list[str]:
    """Return temporary files and folders in the places where a verb writes."""
    found = [p for name in PLACES for p in (folder / name).rglob("*")]
    odd = [p for p in found if p.name.startswith((".", "tmp_")) or p.name.endswith(".parts")]
    return [str(path.relative_to(folder)) for path in odd if path.name != ".splits"]


def case(verb: Verb, folder: Path, rng: random.Random) -> str:
    """Kill the verb once or twice, finish it, and compare."""
    folder.mkdir()
    if "--force" in verb.words:
        shutil.copytree(folder.parent / "whole prepare --force" / "data", folder / "data")
        (folder / "data" / "Own" / "mine.txt").write_text("of the user\n")
    for _ in range(rng.choice((1, 2))):
        verb.counts["kills"] += kill(verb, folder, rng)
    if left_over(folder):
        verb.counts["with a leftover"] += 1
    failure = finish(verb.words, folder)
    if failure and REFUSED not in failure:
        return f"failed: {failure}"
    if "--force" in verb.words:
        mine = folder / "data" / "Own" / "mine.txt"
        if not mine.is_file():
            return "lost the user's file"
        mine.unlink()
    if digest(verb.found(folder)) != verb.expected:
        return "differs"
    left = left_over(folder)
    return f"left {', '.join(left)}" if left else ""


def whole_case(name: str, verb: Verb, folder: Path) -> None:
    """Run the verb undisturbed, for its seconds and what it leaves.

    Raises:
        RuntimeError: it failed.
    """
    folder.mkdir()
    begin = time.perf_counter()
    failure = finish(verb.words, folder)
    if failure:
        raise RuntimeError(f"{name} failed: {failure}")
    verb.seconds = time.perf_counter() - begin
    verb.expected = digest(verb.found(folder))


def make_base(top: Path, words: list[str]) -> dict[str, str]:
    """Train the run that verbs read, called ``base/run``, and return its content."""
    import recbole_bbqrec.quick_start  # noqa: F401  every case is forked with it

    base = top / "base"
    base.mkdir()
    failure = finish(words, base)
    if failure:
        raise RuntimeError(f"the run failed: {failure}")
    directory = next((base / "saved").glob("*/result.json")).parent
    directory.rename(base / "run")
    return content_of(base / "run")


def main() -> int:
    args = arguments(__doc__, n=110, small=1, more=("verbs",))
    rng = random.Random(args.seed)
    top = (args.output or Path(tempfile.mkdtemp(prefix="kills-"))).absolute()
    top.mkdir(parents=True, exist_ok=True)
    tried = verbs(top)
    if args.verbs:
        tried = {name: tried[name] for name in args.verbs.split(",")}
    names = [list(tried)[number % len(tried)] for number in range(args.n)]
    begin = time.perf_counter()
    content = make_base(top, verbs(top)["run"].words)
    for name in dict.fromkeys(names):
        whole_case(name, tried[name], top / f"whole {name}")
    failures = []
    for number, name in enumerate(names, start=1):
        folder = top / f"{number} {name}"
        problem = case(tried[name], folder, rng)
        if content_of(top / "base" / "run") != content:
            problem = f"{problem} the run that it reads has changed".strip()
        tried[name].counts["cases"] += 1
        tried[name].counts["the same" if not problem else "not the same"] += 1
        if problem:
            failures.append(f"{folder.name}: {problem}")
            print(failures[-1], file=sys.stderr)
        else:
            shutil.rmtree(folder)
    seconds = time.perf_counter() - begin
    print(f"{machine()}; seed {args.seed}; {args.n} cases, {seconds:.0f} s\n")
    columns = ("cases", "kills", "with a leftover", "the same", "not the same")
    print("| verb            | " + " | ".join(columns) + " |")
    print("|-----------------|" + "|".join("-" * (len(c) + 1) + ":" for c in columns) + "|")
    for name, verb in tried.items():
        cells = (f"{verb.counts[c]:>{len(c)}}" for c in columns)
        print(f"| {name:<15} | " + " | ".join(cells) + " |")
    if args.output is None and not failures:
        shutil.rmtree(top)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
