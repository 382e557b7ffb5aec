"""The process of a run of the store."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Callable

from recbole_bbqrec.atomic import writing
from recbole_bbqrec.model.specs import OWN_MODELS, OWN_MODELS_VARIABLE
from recbole_bbqrec.run_files.names import FAILURE, LOG

#: Environment variable with the numbers of the GPUs that a worker may use, else `gpu_id` decides.
ASSIGNED_GPUS = "RECBOLE_BBQREC_GPUS"
_GRACE_SECONDS = 10.0  # for a worker to end by itself before it is killed
_POLL_SECONDS = 1.0


def run_worker(
    directory: Path,
    stop: Callable[[Path], bool] = lambda directory: False,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Run the worker and return its exit code. If interrupted, end the worker first.

    Args:
        directory: of the run.
        stop: asked once a second; True ends the worker.
        environment: variables for the worker beside those of this process; None for
            :func:`variables`.
    """
    with contextlib.ExitStack() as opened:
        with writing(directory / LOG):
            log = opened.enter_context(open(directory / LOG, "ab"))
        process = subprocess.Popen(
            [sys.executable, "-m", "recbole_bbqrec.experiment.store.worker", str(directory)],
            cwd=directory,
            env={**os.environ, **(variables() if environment is None else environment)},
            stdin=subprocess.PIPE,  # the worker ends when this is closed
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        while not stop(directory):
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(_POLL_SECONDS)
        process.terminate()
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


def variables() -> dict[str, str]:
    """Return environment variables with which a process imports this package from any directory.

    It also imports the user's own models that this process has met.
    """
    own = " ".join(f"{facts.module}:{name}" for name, facts in OWN_MODELS.items())
    root = Path(__file__).resolve().parents[3]
    installed = root == Path(sysconfig.get_paths()["purelib"]).resolve()
    paths = [*([] if installed else [str(root)]), *([os.getcwd()] if own else [])]
    paths += filter(None, [os.environ.get("PYTHONPATH")])
    named = {"PYTHONPATH": os.pathsep.join(paths), OWN_MODELS_VARIABLE: own}
    return {name: value for name, value in named.items() if value}
