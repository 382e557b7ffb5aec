"""The files of a finished run, read and checked before anything long starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_bbqrec.errors import UserError, near_file
from recbole_bbqrec.reading import read_json
from recbole_bbqrec.run_files.epochs import Line, read_epochs
from recbole_bbqrec.run_files.names import PLAN, RESULT, RunFiles

#: Keys that every result.json has.
NEEDED = ("model", "dataset", "seed", "test_result", "split_hash", "seconds", "peak_memory_mib")


@dataclass(frozen=True)
class FinishedRun:
    """A finished run: its files, its ``result.json`` and the lines of its ``epochs.jsonl``."""

    files: RunFiles
    result: dict[str, Any]
    epochs: list[Line]

    @classmethod
    def at(cls, path: Path) -> FinishedRun:
        """Read the run at ``path``: its directory, its ``.pth`` file or its place in a run store.

        Raises:
            UserError: there is no such run, it has not finished, or a file of it is damaged.
        """
        files = RunFiles.at(_model_in_store(path) if (path / PLAN).is_file() else path)
        if not files.model.is_file():
            raise UserError(
                f"There is no run at {path}: {files.model} does not exist.{near_file(path)} Give "
                "a run's directory, saved/<Model>-<time>, or the .pth file beside it."
            )
        if not files.result.is_file():
            raise UserError(
                f"The run at {path} has no {files.result}: it has not finished. Continue it with "
                f"--resume={files.directory}."
            )
        return cls(files, _read_result(files.result), read_epochs(files.epochs))


def _model_in_store(directory: Path) -> Path:
    """Return the model's file of a run of ``compare``, ``tune`` or ``reproduce``."""
    if not (directory / RESULT).is_file():
        raise UserError(
            f"The run at {directory} has no {RESULT}: it has not finished. Give the command that "
            "started it again."
        )
    files = _read_result(directory / RESULT).get("files")
    if not isinstance(files, dict) or not isinstance(files.get("model"), str):
        raise UserError(f"{directory / RESULT} names no saved model. Restore it, or run again.")
    return directory / files["model"]


def _read_result(path: Path) -> dict[str, Any]:
    result = read_json(path, "the result.json that a run writes", "Restore it, or run again.")
    missing = [key for key in NEEDED if not isinstance(result, dict) or key not in result]
    if missing:
        raise UserError(
            f"{path} lacks {', '.join(missing)}; expected the result.json that a run writes. "
            "Restore it, or run again."
        )
    if not result["test_result"]:
        raise UserError(
            f"{path} has no test metrics: the run was trained without a test, as `tune` does. Run "
            "the chosen options with `run`, and report that."
        )
    return result
