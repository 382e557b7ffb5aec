"""Errors of wandb when a trainer starts it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.protocols import RunConfig


@contextmanager
def starting_wandb(config: RunConfig) -> Iterator[None]:
    """Turn what wandb raises in the block into an error that names the option."""
    try:
        yield
    except Exception as error:
        if not config["log_wandb"] or type(error).__module__.partition(".")[0] != "wandb":
            raise
        raise UserError(
            f"Option `log_wandb` is True, but wandb does not start: {error}. Log in (wandb login), "
            "set the environment variable WANDB_MODE=offline, or leave the option out."
        ) from error
