"""Check that what a run logs to is installed."""

from __future__ import annotations

from importlib.util import find_spec

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.protocols import RunConfig


def check_logging_services(config: RunConfig) -> None:
    """Raise a UserError if `log_wandb` or `log_mlflow` is set and the package is not installed.

    An earlier run of wandb leaves a folder of its name, which Python takes for a package.
    """
    for option, package in (("log_wandb", "wandb"), ("log_mlflow", "mlflow")):
        if not config[option]:
            continue
        found = find_spec(package)
        if found is None or found.origin is None:
            raise UserError(
                f"Option `{option}` is {config[option]}, which needs {package}: pip install "
                f"{package}, or leave it out."
            )
