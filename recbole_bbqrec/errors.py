"""The exception that users see as a message, not a traceback; hints for its message."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


class UserError(Exception):
    """A mistake that the user can correct, in an option, a file or a value.

    The message names the option or file, its value, the expected values and the remedy. The
    command line prints it without a traceback and exits with code 2.
    """


class LostProcessError(RuntimeError):
    """Another process of a run of several has ended, or does not answer.

    The command line prints its message once and exits with code 1.
    """


def listed(name: str, values: Any) -> list[Any]:
    """Return the ``values`` of an argument as a list.

    Raises:
        UserError: a single token or a table stands in its place.
    """
    if isinstance(values, (str, bytes)) or not hasattr(values, "__iter__"):
        raise UserError(f"{name} is {values!r}; expected a list of raw tokens: [{values!r}].")
    if isinstance(values, Mapping) or hasattr(values, "columns"):
        raise UserError(
            f"{name} is a {type(values).__name__}; expected a list, an array or a column."
        )
    return list(values)


def did_you_mean(name: str, known: Iterable[str], n: int = 1) -> str:
    """Return " Did you mean `x`?" for the names in ``known`` nearest to ``name``, or "".

    >>> did_you_mean("epoch", ["epochs", "dropout"])
    ' Did you mean `epochs`?'
    >>> did_you_mean("bbqrec", ["BBQRec"])
    ' Did you mean `BBQRec`?'
    >>> did_you_mean("Mini", ["Mini"])  # known, and missing for another reason
    ''
    """
    known = [other for other in known if other != name]
    near = [other for other in known if other.lower() == name.lower()]
    near = near or difflib.get_close_matches(name, known, n=n)
    return f" Did you mean {' or '.join(f'`{other}`' for other in near)}?" if near else ""


def near_file(path: str | os.PathLike[str]) -> str:
    """Return " Did you mean `x`?" for the file beside ``path``, which is absent, nearest in name.

    >>> near_file("no such folder/orders.csv")
    ''
    """
    path = Path(path)
    try:
        beside = sorted(os.listdir(path.parent))
    except OSError:
        return ""
    return "" if path.exists() else did_you_mean(path.name, beside)


def pip_install(extra: str) -> str:
    """Return the command that installs an extra: of the installed package, or of the checkout."""
    from importlib import metadata

    try:
        metadata.version("recbole_bbqrec")
        return f"pip install 'recbole_bbqrec[{extra}]'"
    except metadata.PackageNotFoundError:
        return f"pip install '{Path(__file__).resolve().parents[1]}[{extra}]'"
