"""The exception that users see as a message, not a traceback; hints for its message."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake that the user can correct, in an option, a file or a value.

    The message names the option or file, its value, the expected values and the remedy. The
    command line prints it without a traceback and exits with code 2.
    """


class LostProcessError(RuntimeError):
    """Another process of a run of several has ended, or does not answer.

    The command line prints its message once and exits with code 1.
    """


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
