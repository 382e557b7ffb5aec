"""One run of the store in a process of its own.

``python -m recbole_bbqrec.experiment.store.worker DIR`` is started
by :class:`recbole_bbqrec.experiment.store.store.RunStore`, in the run's directory. The run
continues where an earlier, killed process left it. ``result.json`` is written last: where it
exists, the run is finished.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from recbole_bbqrec.atomic import atomic_path
from recbole_bbqrec.config.values import read_yaml
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.quick_start import run
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
    """Run what ``plan.json`` and ``config.yaml`` in ``directory`` say; leave ``result.json``.

    Raises:
        UserError: the run is another process's, or ends in a user error.
    """
    try:
        held = FileLock(str(directory / LOCK)).acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"Another process is working on the run in {directory}. Wait for it, or end it."
        ) from None
    with held:
        if (directory / RESULT).is_file():
            return  # finished by another process while this one started
        plan = json.loads((directory / PLAN).read_text(encoding="utf-8"))
        result = _finished(directory) or _run(directory, plan)
        if result["split_hash"] != plan["split_hash"]:
            raise UserError(
                f"The run in {directory} trained on the split {result['split_hash']}; the data had "
                f"the split {plan['split_hash']} when it was planned. Start the command again."
            )
        with atomic_path(directory / RESULT) as temporary:
            temporary.write_text(json.dumps({**result, "run": plan}, indent=2) + "\n", "utf-8")
        for resume in (directory / SAVED).glob("*/resume.pth"):
            resume.unlink()  # as large as the model, twice over, and of no more use
        (directory / FAILURE).unlink(missing_ok=True)


def _run(directory: Path, plan: dict[str, Any]) -> dict[str, Any]:
    # As a file, not as overrides: a planned configuration is taken whatever it holds.
    file = directory / CONFIG
    options = read_yaml(file)
    here = {"checkpoint_dir": SAVED, "resume": "auto", "show_progress": False}
    result = run(options["model"], options["dataset"], [file], here, test=plan["test"])
    return _relative(directory, result)


def _relative(directory: Path, result: dict[str, Any]) -> dict[str, Any]:
    """The result with its files relative to ``directory``, so that the store can be moved."""
    files = {k: os.path.relpath(p, directory) for k, p in result["files"].items() if k != "resume"}
    return {**result, "files": files}


def _finished(directory: Path) -> dict[str, Any] | None:
    """The result of a process that was killed between its last two writes."""
    for path in (directory / SAVED).glob("*/result.json"):
        result = json.loads(path.read_text(encoding="utf-8"))
        return _relative(directory, {**result, "files": RunFiles(path.parent).written()})
    return None


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, however that ended.

    The parent holds the other end of standard input and writes nothing to it. All files are
    written atomically, so that ending at any moment is safe.
    """

    def wait() -> None:
        # Not through sys.stdin: a thread inside its buffer makes Python abort when it shuts down.
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
