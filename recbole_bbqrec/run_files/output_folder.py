"""Check, before long work, that what it gives can be written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from recbole_bbqrec.errors import UserError

_LEAST_FREE = 1 << 20  # bytes; with less room left not even the smallest run can be written


def check_output_folder(option: str, value: Any) -> None:
    """Refuse a folder that cannot be made or written to, without making it.

    Raises:
        UserError: the path or its nearest existing parent is a file, is not writable, or is on a
            full disk.
    """
    reason = _closed(Path(str(value)))
    if reason:
        raise UserError(
            f"Option `{option}` is {value}; {reason}. Expected a folder that is writable or can be "
            "made: choose another, or remove the file in its place."
        )


def check_log_folders() -> None:
    """Refuse to start where RecBole's log and TensorBoard's files cannot be written.

    Raises:
        UserError: ``log`` or ``log_tensorboard`` cannot be made or written to.
    """
    for name in ("log", "log_tensorboard"):
        reason = _closed(Path(name))
        if reason:
            raise UserError(
                f"Cannot write the folder {name} of the working directory: {reason}. A run keeps "
                "its log there: make room, open it, or run in another directory."
            )


def _closed(path: Path) -> str | None:
    """Say why nothing can be written to the folder ``path``; None if it can."""
    for place in (path, *path.absolute().parents):
        if os.path.isdir(place):  # Path.is_dir() raises if a parent is not readable
            if not os.access(place, os.W_OK | os.X_OK):
                return f"{place} is closed to writing"
            full = shutil.disk_usage(place).free < _LEAST_FREE
            return f"no space is left on the disk of {place}" if full else None
        if os.path.lexists(place):
            return f"{place} is a file"
    return None
