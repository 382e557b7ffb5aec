"""The one exception that is shown to a user as a message instead of a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can put right: a key, a file or a value.

    The message names the thing, the value found, what was expected and what to do. The command
    line prints it without a traceback and exits with code 2.
    """


def did_you_mean(name: str, known: Iterable[str], n: int = 1) -> str:
    """Return " Did you mean `x`?" for the names in ``known`` nearest to ``name``, or "".

    >>> did_you_mean("epoch", ["epochs", "dropout"])
    ' Did you mean `epochs`?'
    >>> did_you_mean("bbqrec", ["BBQRec"])
    ' Did you mean `BBQRec`?'
    """
    known = list(known)
    near = [other for other in known if other.lower() == name.lower()]
    near = near or difflib.get_close_matches(name, known, n=n)
    return f" Did you mean {' or '.join(f'`{other}`' for other in near)}?" if near else ""
