"""One run of the store, in its own process.

:class:`recbole_bbqrec.experiment.store.store.RunStore` starts
``python -m recbole_bbqrec.experiment.store.worker DIR`` in the run's directory. The run continues
where an earlier, killed process left it. ``result.json`` is written last: if it exists, the run is
finished.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from recbole_bbqrec.atomic import atomic_path, remove_unfinished
from recbole_bbqrec.config.values import read_yaml
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.experiment.store.evaluate_anew import evaluate_anew
from recbole_bbqrec.experiment.store.process import ASSIGNED_GPUS
from recbole_bbqrec.quick_start import run
from recbole_bbqrec.reading import read_json_object
from recbole_bbqrec.run_files.console import Shown, show
from recbole_bbqrec.run_files.names import (
    CONFIG,
    FAILURE,
    LOCK,
    PLAN,
    RESULT,
    SAVED,
    RunFiles,
)

FAILED, INTERRUPTED = 1, 130


def work(directory: Path) -> None:
    """Make the run of ``plan.json`` and ``config.yaml`` in ``directory``; write ``result.json``.

    Raises:
        UserError: another process is working on the run, or the run raised it.
    """
    try:
        lock = FileLock(str(directory / LOCK)).acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"Another process is working on the run in {directory}. Wait for it or end it."
        ) from None
    with lock:
        if (directory / RESULT).is_file():
            return  # finished by another process while this one started
        remove_unfinished(directory)
        for files in RunFiles.all_in(directory / SAVED):
            files.claim().release()  # removes what is left of a killed process
        plan = _read(directory / PLAN)
        result = _finished(directory) or _evaluated(directory, plan) or _run(directory, plan)
        if result["split_hash"] != plan["split_hash"]:
            raise UserError(
                f"The run in {directory} trained on the split {result['split_hash']}, but the "
                f"data had the split {plan['split_hash']} when it was planned. Start the command "
                "again."
            )
        with atomic_path(directory / RESULT) as temporary:
            temporary.write_text(json.dumps({**result, "run": plan}, indent=2) + "\n", "utf-8")
        for files in RunFiles.all_in(directory / SAVED):
            files.resume.unlink(missing_ok=True)  # twice the size of the model, not needed any more
        (directory / FAILURE).unlink(missing_ok=True)


def _evaluated(directory: Path, plan: dict[str, Any]) -> dict[str, Any] | None:
    """Evaluate the weights of the run that ``plan`` names, if any, and if it is still whole."""
    if "trained_in" not in plan:
        return None
    source = directory / plan["trained_in"]
    try:
        return _relative(directory, evaluate_anew(directory, source))
    except UserError as error:
        print(f"The run in {source} cannot be evaluated anew, so this one is trained. {error}")
        shutil.rmtree(directory / SAVED, ignore_errors=True)
        return None


def _run(directory: Path, plan: dict[str, Any]) -> dict[str, Any]:
    # A file, not overrides: options that the model does not read are refused as overrides.
    file = directory / CONFIG
    options = read_yaml(file)
    overrides = {"checkpoint_dir": SAVED, "resume": "auto", "show_progress": False}
    if os.environ.get(ASSIGNED_GPUS):
        overrides["gpu_id"] = os.environ[ASSIGNED_GPUS]
    with show(Shown.DETAILS):  # into the log of the store
        result = run(options["model"], options["dataset"], [file], overrides, test=plan["test"])
    return _relative(directory, result)


def _relative(directory: Path, result: dict[str, Any]) -> dict[str, Any]:
    """Make the result's files relative to ``directory``, so that the store can be moved."""
    files = {k: os.path.relpath(p, directory) for k, p in result["files"].items() if k != "resume"}
    return {**result, "files": files}


def _finished(directory: Path) -> dict[str, Any] | None:
    """Return the result of a process that was killed between its last two writes, if any."""
    for files in RunFiles.all_in(directory / SAVED):
        if files.result.is_file():
            result = _read(files.result)
            return _relative(directory, {**result, "files": files.written()})
    return None


def _read(path: Path) -> dict[str, Any]:
    return read_json_object(path, "a file of a run", f"Remove {path.parent} to run it again.")


def _end_with_parent() -> None:
    """End this process when its parent is gone.

    The parent holds the other end of standard input and writes nothing to it. All files are
    written atomically, so ending at any moment is safe.
    """

    def wait() -> None:
        # Not sys.stdin: a thread that reads its buffer makes Python abort at shutdown.
        while os.read(0, 1):
            pass
        os._exit(INTERRUPTED)

    threading.Thread(target=wait, daemon=True).start()


def main() -> int:
    directory = Path(sys.argv[1])
    _end_with_parent()
    (directory / FAILURE).unlink(missing_ok=True)
    try:
        work(directory)
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if not isinstance(error, UserError):
            traceback.print_exc()
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        print(f"error: {error}", file=sys.stderr)
        with atomic_path(directory / FAILURE) as temporary:
            temporary.write_text(f"{kind}{error}\n", encoding="utf-8")
        return FAILED


if __name__ == "__main__":
    sys.exit(main())
