"""The one exception that is shown to a user as a message instead of a traceback."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can put right: a key, a file or a value.

    The message names the thing, the value found, what was expected and what to do. The command
    line prints it without a traceback and exits with code 2.
    """
