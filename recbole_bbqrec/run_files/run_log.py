"""The log of a run: RecBole's logger, set up anew for each run of a process."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

from recbole.utils import init_logger

from recbole_bbqrec.atomic import writing
from recbole_bbqrec.distributed.group import is_main
from recbole_bbqrec.protocols import RunConfig
from recbole_bbqrec.run_files import console
from recbole_bbqrec.run_files.output_folder import check_log_folders

logger = logging.getLogger()


def start_logging(config: RunConfig) -> None:
    """Point RecBole's logger to the log file of this run.

    RecBole adds its handlers only to a logger without any: close those of an earlier run, and take
    the caller's off meanwhile. Of several processes the first alone has a log; the others print
    errors.
    """
    others = []
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)
        if type(handler) in (logging.FileHandler, logging.StreamHandler):
            handler.close()
        else:
            others.append(handler)
    if is_main():
        check_log_folders()
        with writing("log"):
            init_logger(config)
    else:
        logging.basicConfig(level=logging.ERROR)
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler):
            _end_where_it_cannot_write(handler)
        elif isinstance(handler, logging.StreamHandler):
            console.limit(handler)
    for handler in others:
        logger.addHandler(handler)


def _end_where_it_cannot_write(handler: logging.FileHandler) -> None:
    """Let a log file on a full disk end with a warning, in place of a traceback for every line."""
    otherwise = handler.handleError

    def end(record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            otherwise(record)
        elif handler in logger.handlers:
            logger.removeHandler(handler)
            logger.warning(f"Cannot write the log file {handler.baseFilename}: it ends here.")

    handler.handleError = end  # type: ignore[method-assign]


def log_paths(trainer: Any) -> dict[str, str]:
    """Return the paths that the logger ("log") and TensorBoard ("tensorboard") write to."""
    paths = {}
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler):
            paths["log"] = str(Path(handler.baseFilename))
    paths["tensorboard"] = str(trainer.tensorboard.log_dir)
    return paths
