"""The folder that a run is told to write to, looked at before the data are read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from recbole_bbqrec.errors import UserError


def check_output_folder(option: str, value: Any) -> None:
    """Refuse a folder that cannot be made or written to; nothing is made.

    Raises:
        UserError: the path, or what it lies in, is a file or is closed to writing.
    """
    path = Path(str(value))
    for place in (path, *path.absolute().parents):
        if os.path.isdir(place):  # Path.is_dir() raises where a folder above is closed
            if os.access(place, os.W_OK | os.X_OK):
                return
            reason = f"{place} is closed to writing"
        elif os.path.lexists(place):
            reason = f"{place} is a file"
        else:
            continue
        raise UserError(
            f"Option `{option}` is {value}; {reason}. Expected a folder to write to, there or to "
            "be made: choose another, or remove what is in its place."
        )
