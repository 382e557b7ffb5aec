"""The log of a run: RecBole's logger, for one run after another in the same process."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from recbole.utils import init_logger

from recbole_bbqrec.protocols import RunConfig

logger = logging.getLogger()


def start_logging(config: RunConfig) -> None:
    """RecBole's logger on this run's file, also when a run came before in this process.

    RecBole sets its handlers up only where there are none, so those of an earlier run are closed
    and those of the caller put aside meanwhile.
    """
    others = []
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)
        if type(handler) in (logging.FileHandler, logging.StreamHandler):
            handler.close()
        else:
            others.append(handler)
    init_logger(config)
    for handler in others:
        logger.addHandler(handler)


def log_paths(trainer: Any) -> dict[str, str]:
    """The files that a run's logger and its TensorBoard write: "log" and "tensorboard"."""
    paths = {}
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler):
            paths["log"] = str(Path(handler.baseFilename))
    paths["tensorboard"] = str(trainer.tensorboard.log_dir)
    return paths
