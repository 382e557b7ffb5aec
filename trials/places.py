"""Places that cannot be written: one error that names the place, whole files, and a way to go on.

Cases go round: a disk with room for a part of a run, which then goes on with more room; closed and
misused folders for checkpoints, logs and results; a folder that vanishes at a random moment; two
processes on one run. A case is well when it ends in success or in one error of ours, without a
traceback, when every checkpoint that is left can be read, and when the same command, given again
where it can work, has the result of an undisturbed run.

For root, the full disk is a small tmpfs and a closed folder a read-only one; for others, they are a
limit of file sizes and a folder without the right to write.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common import arguments, command, digest, environment, finish, machine, write_options

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.run_files.checkpoint import load_checkpoint
from recbole_bbqrec.run_files.finished_run import FinishedRun
from recbole_bbqrec.run_files.per_user import PerUser

IS_ROOT = os.geteuid() == 0


def start(words: Sequence[str], folder: Path, **how: Any) -> subprocess.Popen[str]:
    """Start a verb in ``folder`` with its output kept."""
    return subprocess.Popen(
        command(*words), cwd=folder, env={**environment(), "HOME": str(folder)}, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **how,
    )  # fmt: skip


def judged(process: subprocess.Popen[str], *expected: str) -> str:
    """Wait for the process; return what is wrong with its end, or nothing."""
    error = process.communicate(timeout=300)[1]
    if "Traceback" in error or process.returncode not in (0, 2):
        return f"exit code {process.returncode}: {error[-1500:]}"
    last = error.strip().splitlines()[-1] if error.strip() else ""
    if expected and (process.returncode != 2 or not any(word in last for word in expected)):
        return f"exit code {process.returncode}, expected one of {expected}: {last}"
    return ""


def unreadable(folder: Path) -> str:
    """Name the first checkpoint in ``folder`` that cannot be read."""
    for path in sorted(folder.rglob("*.pth")):
        try:
            load_checkpoint(path)
        except UserError as error:
            return str(error)
    left = [str(path) for path in folder.rglob(".*.tmp")]
    return f"left {left}" if left else ""


def result(folder: Path) -> str:
    """Return a hash of the metrics of the finished run in ``folder``, on average and by user."""
    (path,) = folder.glob("*/result.json")
    run = FinishedRun.at(path.parent)
    return digest([run.result["test_result"], vars(PerUser.load(run.files.per_user))])


class Trial:
    """The cases, each a method that returns what went wrong, or nothing."""

    def __init__(self, top: Path, rng: random.Random) -> None:
        self.top, self.rng = top, rng
        options = write_options(top)
        self.train = ["run", "--model=BBQRec", "--dataset=Mini", f"--config_files={options}"]
        self.train.append("--resume=auto")
        whole = top / "whole"
        whole.mkdir()
        begin = time.perf_counter()
        finish(self.train, whole)
        self.seconds = time.perf_counter() - begin
        self.expected = result(whole / "saved")
        (path,) = (whole / "saved").glob("*/result.json")
        self.finished = path.parent
        self.size = sum(path.stat().st_size for path in (whole / "saved").rglob("*"))

    def full_disk(self, folder: Path) -> str:
        """Give a part of the room that a run needs, then all of it."""
        room = int(self.rng.uniform(0.02, 0.95) * self.size)
        disk = folder / "disk"
        disk.mkdir()
        words = [*self.train, f"--checkpoint_dir={disk / 'saved'}"]
        if not IS_ROOT:
            limit = (room // 4, resource.RLIM_INFINITY)
            small = start(words, folder, preexec_fn=lambda: resource.setrlimit(
                resource.RLIMIT_FSIZE, limit))  # fmt: skip
            return judged(small) or unreadable(disk) or self._goes_on(words, folder, disk)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={room // 1024}k", "tmpfs", str(disk)]
        subprocess.run(mount, check=True)
        try:
            problem = judged(start(words, folder), "no space left") or unreadable(disk)
            subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
            return problem or self._goes_on(words, folder, disk)
        finally:
            subprocess.run(["umount", str(disk)], check=True)

    def _goes_on(self, words: Sequence[str], folder: Path, disk: Path) -> str:
        problem = judged(start(words, folder)) or unreadable(disk)
        if problem:
            return problem
        return "" if result(disk / "saved") == self.expected else "differs"

    def closed(self, folder: Path) -> str:
        """Close a place that the verb writes to, or put a file there."""
        verb, place = self.rng.choice(
            [("run", "."), ("run", "log"), ("run", "log_tensorboard"), ("run", "saved"),
             ("report", "out"), ("evaluate", "out"), ("compare", "out")]
        )  # fmt: skip
        words = {
            "run": self.train,
            "report": ["report", str(self.finished), f"--output={folder / 'out'}"],
            "evaluate": ["evaluate", str(self.finished), f"--output={folder / 'out'}"],
            "compare": ["compare", "--models=ItemNeighbours", "--datasets=Mini", "--output=out",
                        f"--runs={folder / 'runs'}"],
        }[verb]  # fmt: skip
        path, mounted = folder / place, False
        if place != "." and self.rng.random() < 0.5:
            path.write_text("a file")
        else:
            path.mkdir(exist_ok=True)
            path.chmod(stat.S_IRUSR | stat.S_IXUSR)
            mounted = IS_ROOT  # who may write to any folder but a read-only one
            if mounted:
                subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(path)], check=True)
        try:
            problem = judged(start(words, folder), "closed to writing", "is a file")
        finally:
            if mounted:
                subprocess.run(["umount", str(path)], check=True)
            path.chmod(0o700)
        return f"{verb}, {place}: {problem}" if problem else ""

    def vanished(self, folder: Path) -> str:
        """Remove the folder of checkpoints while the run is at work; it may make it anew."""
        process = start(self.train, folder)
        time.sleep(self.rng.uniform(0.3, 1.0) * self.seconds)
        shutil.rmtree(folder / "saved", ignore_errors=True)
        problem = judged(process)
        shutil.rmtree(folder / "saved", ignore_errors=True)
        return problem or self._goes_on(self.train, folder, folder)

    def two_processes(self, folder: Path) -> str:
        """Start the same run twice: both end well, in directories of their own."""
        both = [start(self.train, folder) for _ in range(2)]
        problem = " ".join(judged(process) for process in both).strip() or unreadable(folder)
        found = sorted((folder / "saved").glob("*/result.json"))
        for path in found:
            run = FinishedRun.at(path.parent)
            users = vars(PerUser.load(run.files.per_user))
            if digest([run.result["test_result"], users]) != self.expected:
                problem = problem or "differs"
        return problem or ("" if found else "no result")


def main() -> int:
    args = arguments(__doc__, n=40, small=3)
    top = (args.output or Path(tempfile.mkdtemp(prefix="places-"))).absolute()
    top.mkdir(parents=True, exist_ok=True)
    top.chmod(0o755)
    begin = time.perf_counter()
    trial = Trial(top, random.Random(args.seed))
    cases: list[Callable[[Path], str]] = [
        trial.full_disk, trial.closed, trial.closed, trial.vanished, trial.two_processes,
    ]  # fmt: skip
    tried: dict[str, list[str]] = {}
    for number in range(args.n):
        case = cases[number % len(cases)]
        folder = top / str(number)
        folder.mkdir()
        tried.setdefault(case.__name__, []).append(case(folder))
    print(f"{machine()}; seed {args.seed}; {args.n} cases, {time.perf_counter() - begin:.0f} s\n")
    print("| place         | cases | well |\n|---------------|------:|-----:|")
    for name, problems in tried.items():
        print(f"| {name:<13} | {len(problems):>5} | {problems.count(''):>4} |")
        for problem in filter(None, problems):
            print(f"{name}: {problem}", file=sys.stderr)
    if args.output is None:
        shutil.rmtree(top)
    return 1 if any(any(problems) for problems in tried.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
