"""Killed processes: the same command again ends in the result of an uninterrupted one, bit for bit.

Cases go round: `run`, killed at a random moment; `run`, killed in the k-th write of a file, before
or after it is put in its place; `compare`, of which the whole or only the first process is killed;
`prepare` of tables. Half of the killed runs are killed a second time. Then the command is given
again and left alone. Compared are weights, semantic IDs, metrics, each user's metrics and the
epochs' lines of a run (but for seconds and memory), the tables of `compare` and the files of
`prepare`. No temporary file may be left.

Prints one row a verb; exits with 1 if a case differs, fails or leaves something behind.
"""

from __future__ import annotations

import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common import TINY, arguments, command, digest, environment, finish, machine, write_options

from recbole_bbqrec.run_files.checkpoint import load_checkpoint
from recbole_bbqrec.run_files.epochs import read_epochs
from recbole_bbqrec.run_files.finished_run import FinishedRun
from recbole_bbqrec.run_files.per_user import PerUser
from recbole_bbqrec.tokenizer.semantic_ids import SemanticIds

FIRST = 0.3  # share of the time in which Python starts: nothing is written yet
PASSING = ("seconds", "peak_memory_mib")  # what no two runs share

#: Runs a verb that kills itself in its k-th write.
IN_A_WRITE = """
import os, signal, sys
from recbole_bbqrec.cli.main import main
k, before, left = int(sys.argv[1]), sys.argv[2] == "before", os.replace
done = 0
def replace(*names):
    global done
    done += 1
    if done == k and before:
        os.kill(os.getpid(), signal.SIGKILL)
    left(*names)
    if done == k:
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = replace
sys.exit(main(sys.argv[3:]))
"""


@dataclass
class Verb:
    """A verb: its command, and what it leaves of worth."""

    words: list[str]
    found: Callable[[Path], Any]
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


def of_compare(folder: Path) -> Any:
    """Return the table of metrics and each user's metrics."""
    with open(folder / "out" / "results.csv", newline="") as file:
        rows = [(row["model"], row["metric"], row["mean"]) for row in csv.DictReader(file)]
    users = sorted(folder.glob("runs/Mini/*/*/saved/*/per_user.npz"))
    return rows, [vars(PerUser.load(path)) for path in users]


def of_prepare(folder: Path) -> Any:
    made = folder / "data" / "Own"
    return {path.name: path.read_bytes() for path in sorted(made.iterdir())}


def verbs(folder: Path) -> dict[str, Verb]:
    """Write the inputs of the verbs and return them."""
    options = write_options(folder)
    events = (Path(TINY["data_path"]) / "Mini" / "Mini.inter").read_text().splitlines()[1:]
    rows = [",".join(line.split("\t")[:3]) for line in events]
    (folder / "events.csv").write_text("\n".join(["user_id,item_id,timestamp", *rows]) + "\n")
    train = ["run", "--model=BBQRec", "--dataset=Mini", f"--config_files={options}"]
    compare = ["compare", "--models=SASRec,GRU4Rec", "--datasets=Mini", "--seeds=1", "--epochs=2"]
    compare += [f"--data_path={TINY['data_path']}", "--hidden_size=16", "--inner_size=16"]
    compare += ["--num_threads=1", "--output=out"]
    made = ["prepare", "Own", f"--interactions={folder / 'events.csv'}", "--data_path=data"]
    return {
        "run": Verb([*train, "--resume=auto"], of_run),
        "run, in a write": Verb([*train, "--resume=auto"], of_run),
        "compare": Verb(compare, of_compare),
        "prepare": Verb(made, of_prepare),
    }


def kill(name: str, verb: Verb, folder: Path, rng: random.Random) -> bool:
    """Start the verb and kill it; return False if it had ended before."""
    words = command(*verb.words)
    if name == "run, in a write":
        place = [str(rng.randint(1, 14)), rng.choice(("before", "after"))]
        words = [sys.executable, "-c", IN_A_WRITE, *place, *verb.words]
    process = subprocess.Popen(
        words, cwd=folder, env=environment(), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        process.wait(60 if "write" in name else rng.uniform(FIRST, 1) * verb.seconds)
        return process.returncode == -signal.SIGKILL
    except subprocess.TimeoutExpired:
        whole = rng.random() < 0.5
        if whole:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()  # a worker sees that its parent is gone
        process.wait()
        time.sleep(0 if whole else 1)
        return True


def left_over(folder: Path) -> list[str]:
    """Return temporary files and folders in the places where a verb writes."""
    found = [p for name in ("saved", "runs", "out", "data") for p in (folder / name).rglob("*")]
    hidden = [p for p in found if p.name.startswith(".") and p.name != ".splits"]
    return [str(path.relative_to(folder)) for path in hidden]


def case(name: str, verb: Verb, folder: Path, rng: random.Random) -> str:
    """Kill the verb once or twice, finish it, and compare."""
    folder.mkdir()
    for _ in range(rng.choice((1, 2))):
        verb.counts["kills"] += kill(name, verb, folder, rng)
    if left_over(folder):
        verb.counts["with a leftover"] += 1
    words = verb.words
    if name == "prepare" and (folder / "data" / "Own" / "Own.inter").is_file():
        words = [*words, "--force"]  # it had been made before the kill
    try:
        finish(words, folder)
    except RuntimeError as error:
        return f"failed: {error}"
    if digest(verb.found(folder)) != verb.expected:
        return "differs"
    left = left_over(folder)
    return f"left {', '.join(left)}" if left else ""


def main() -> int:
    args = arguments(__doc__, n=50, small=2)
    rng = random.Random(args.seed)
    top = (args.output or Path(tempfile.mkdtemp(prefix="kills-"))).absolute()
    top.mkdir(parents=True, exist_ok=True)
    tried = verbs(top)
    names = [list(tried)[number % len(tried)] for number in range(args.n)]
    begin = time.perf_counter()
    for name in dict.fromkeys(names):
        verb, folder = tried[name], top / f"whole {name}"
        same = next((v for v in tried.values() if v.words == verb.words and v.expected), None)
        if same is not None:
            verb.seconds, verb.expected = same.seconds, same.expected
            continue
        folder.mkdir()
        start = time.perf_counter()
        finish(verb.words, folder)
        verb.seconds = time.perf_counter() - start
        verb.expected = digest(verb.found(folder))
    failures = []
    for number, name in enumerate(names, start=1):
        folder = top / f"{number} {name}"
        problem = case(name, tried[name], folder, rng)
        tried[name].counts["cases"] += 1
        tried[name].counts["the same" if not problem else "not the same"] += 1
        if problem:
            failures.append(f"{folder.name}: {problem}")
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
    for failure in failures:
        print(failure, file=sys.stderr)
    if args.output is None and not failures:
        shutil.rmtree(top)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
