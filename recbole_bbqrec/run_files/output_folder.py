"""Check, before the data is read, that the output folder of a run is writable."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from recbole_bbqrec.errors import UserError


def check_output_folder(option: str, value: Any) -> None:
    """Refuse a folder that cannot be made or written to, without making it.

    Raises:
        UserError: the path or its nearest existing parent is a file, or is not writable.
    """
    path = Path(str(value))
    for place in (path, *path.absolute().parents):
        if os.path.isdir(place):  # Path.is_dir() raises if a parent is not readable
            if os.access(place, os.W_OK | os.X_OK):
                return
            reason = f"{place} is closed to writing"
        elif os.path.lexists(place):
            reason = f"{place} is a file"
        else:
            continue
        raise UserError(
            f"Option `{option}` is {value}; {reason}. Expected a folder that is writable or can be "
            "made: choose another, or remove the file in its place."
        )
