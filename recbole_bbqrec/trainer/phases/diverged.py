"""What is said when training has left the range of numbers: the option, its value, what to do."""

from __future__ import annotations

from recbole_bbqrec.errors import UserError


def diverged(what: str, option: str, value: float) -> UserError:
    """The error for ``what`` (such as "the training loss of epoch 0 is nan") to be raised."""
    return UserError(
        f"Option `{option}` is {value:g}: {what}; expected a finite number. Training has diverged: "
        f"start a new run with a lower --{option}."
    )
