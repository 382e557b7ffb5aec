"""Check that what a run logs to is installed."""

from __future__ import annotations

from importlib.util import find_spec

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.protocols import RunConfig


def check_wandb(config: RunConfig) -> None:
    """Raise a UserError if `log_wandb` is set and wandb is not installed.

    An earlier run of wandb leaves a folder of its name, which Python takes for a package.
    """
    if not config["log_wandb"]:
        return
    found = find_spec("wandb")
    if found is None or found.origin is None:
        raise UserError(
            "Option `log_wandb` is True, which needs wandb: pip install wandb, or leave it out."
        )
