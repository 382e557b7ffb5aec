"""The process of a run of the store."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

from recbole_bbqrec.atomic import writing
from recbole_bbqrec.model.registry import OWN_MODELS, OWN_MODELS_VARIABLE
from recbole_bbqrec.run_files.names import FAILURE, LOG

_GRACE_SECONDS = 10.0  # for a worker to end by itself before it is killed


def run_worker(directory: Path) -> int:
    """Run the worker and return its exit code. If interrupted, end the worker first."""
    with contextlib.ExitStack() as opened:
        with writing(directory / LOG):
            log = opened.enter_context(open(directory / LOG, "ab"))
        process = subprocess.Popen(
            [sys.executable, "-m", "recbole_bbqrec.experiment.store.worker", str(directory)],
            cwd=directory,
            env=_environment(),
            stdin=subprocess.PIPE,  # the worker ends when this is closed
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        return process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE_SECONDS)
            process.kill()
            process.wait()
        assert process.stdin is not None
        process.stdin.close()


def failure(directory: Path, code: int) -> str:
    """Return the reason why a worker gave no result, in one line."""
    path = directory / FAILURE
    if path.is_file():
        return " ".join(path.read_text(encoding="utf-8", errors="replace").split())  # in one line
    end = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return f"The process {end}."


def _environment() -> dict[str, str]:
    """Return an environment in which a process imports this package from any directory.

    It also imports the user's own models that this process has met.
    """
    own = " ".join(f"{facts.module}:{name}" for name, facts in OWN_MODELS.items())
    root = Path(__file__).resolve().parents[3]
    installed = root == Path(sysconfig.get_paths()["purelib"]).resolve()
    paths = [*([] if installed else [str(root)]), *([os.getcwd()] if own else [])]
    paths += filter(None, [os.environ.get("PYTHONPATH")])
    variables = {"PYTHONPATH": os.pathsep.join(paths), OWN_MODELS_VARIABLE: own}
    return {**os.environ, **{name: value for name, value in variables.items() if value}}
