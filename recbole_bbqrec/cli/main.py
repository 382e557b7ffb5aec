"""Entry point of ``python -m recbole_bbqrec VERB``: choose the verb's module, and handle errors."""

from __future__ import annotations

import argparse
import errno
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple

from recbole_bbqrec import compat
from recbole_bbqrec.cli.grammar import CLOSED_PIPE, FAILED, INTERRUPTED, USER_ERROR, CommandParser
from recbole_bbqrec.errors import LostProcessError, UserError, did_you_mean
from recbole_bbqrec.model.specs import check_name
from recbole_bbqrec.version import __version__


class Verb(NamedTuple):
    """One verb: its module in this folder, its line in the help, and what survives an interrupt."""

    module: str
    purpose: str
    summary: str
    after_interrupt: str = "nothing was left half-done."
    takes_options: bool = False


_SAME_COMMAND = "runs and epochs that had ended are saved. Run the same command to go on."
_RESUME = "epochs that had ended are saved. Run the same command with --resume=auto to go on."
_START, _TRAIN, _FINISHED = "begin", "train and test", "look at finished runs"
_DATA = "data and models"
_WORK = "put finished runs to work"

#: Failures that lie in the disk or in who may use it; elsewhere, an OSError is a fault of ours.
_PLACES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)

_GRAMMAR = """\
Arguments are written --name=value, and lists --models=A,B.
`VERB --help` lists the arguments of a verb; `--version` prints the version.
For a first run:

  python -m recbole_bbqrec run --model=BBQRec --dataset=ml-100k"""

VERBS = {
    "run": Verb("run", _TRAIN, "train and test one model", _RESUME, True),
    "compare": Verb("compare", _TRAIN, "compare models over data sets and seeds", _SAME_COMMAND,
                    True),
    "tune": Verb("tune", _TRAIN, "search the options of a model", _SAME_COMMAND, True),
    "reproduce": Verb("reproduce", _TRAIN, "run a table or figure of the paper", _SAME_COMMAND,
                      True),
    "evaluate": Verb("evaluate", _FINISHED, "test finished runs again, with other options",
                     takes_options=True),
    "report": Verb("report_card", _FINISHED, "write the report card of a finished run"),
    "recommend": Verb("work.recommend", _WORK, "write recommendations for many users to a file",
                      "finished parts are kept. Run the same command to go on."),
    "serve": Verb("work.serve", _WORK, "answer requests for recommendations over HTTP"),
    "add_items": Verb("upkeep.add_items", _WORK, "add items to a finished run without training"),
    "update": Verb("upkeep.update", _WORK, "fold new events, users and items into a finished run",
                   _SAME_COMMAND),
    "export": Verb("upkeep.export", _WORK, "write a model to a folder that needs no RecBole"),
    "prepare": Verb("prepare", _DATA, "make a data set from source files",
                    "the same command goes on with what was downloaded and encoded."),
    "inspect": Verb("inspect_data", _DATA, "show statistics and item neighbours of a data set"),
    "models": Verb("models", _DATA, "list the models with their signals and papers"),
    "doctor": Verb("start.doctor", _START, "show what this machine has, and what is missing"),
    "init": Verb("start.init", _START, "write a YAML file of options to start from"),
    "completion": Verb("start.completion", _START, "print a script for completion in the shell"),
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the verb and return the exit code.

    0 is success; 1, a run of ``compare``, ``reproduce`` or ``tune`` failed, or another process of
    a run of several was lost; 2, a user error; 130,
    interrupted; 141, standard output was closed, as in ``inspect NAME | head``.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if "--version" in words[:2]:  # after a verb, too: run_recbole_bbqrec.py puts one before it
        print(f"recbole_bbqrec {__version__}")
        return 0
    try:
        compat.require_recbole()
    except ImportError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    try:
        code = _main(words)
        if sys.stdout is not None:  # None where the caller closed it
            sys.stdout.flush()  # here: at exit, a closed pipe would print a message
        return code
    except BrokenPipeError:
        if not _output_closed():
            raise
        return CLOSED_PIPE


def parse(arguments: Sequence[str]) -> tuple[ModuleType, argparse.Namespace]:
    """Return the module of the verb and its parsed arguments.

    Raises:
        UserError: an unknown verb or argument.
    """
    name, *words = arguments
    if name not in VERBS:
        raise UserError(
            f"There is no verb `{name}`; expected {', '.join(VERBS)}.{did_you_mean(name, VERBS)}"
        )
    return _module_of(name), parser_of(name).parse(words)


def parser_of(name: str) -> CommandParser:
    """Return the parser of a verb."""
    parser = CommandParser(name, VERBS[name].takes_options)
    _module_of(name).add_arguments(parser)
    return parser


def _check_models(verb: str, *words: str) -> None:
    """Refuse a misspelt model before the verb's module is imported, which can take seconds."""
    if verb not in VERBS or verb == "reproduce":  # which has the paper's names, too
        return
    for word in words:
        argument, _, names = word.partition("=")
        if argument in ("--model", "--models"):
            for name in names.replace(",", " ").split():
                check_name(name)


def _module_of(name: str) -> ModuleType:
    return importlib.import_module(f"recbole_bbqrec.cli.{VERBS[name].module}")


def _main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0 if arguments else USER_ERROR
    try:
        if arguments[0] != "run" and _one_of_several():
            raise UserError(
                f"`{arguments[0]}` runs in one process, and WORLD_SIZE is "
                f"{os.environ['WORLD_SIZE']}. Start `run` alone with torchrun."
            )
        _check_models(*arguments)
        module, args = parse(arguments)
        return int(module.main(args))
    except (UserError, LostProcessError) as error:
        if _reports(error):
            _log_to_file(str(error))
            print(f"error: {error}", file=sys.stderr)
        return USER_ERROR if isinstance(error, UserError) else FAILED
    except OSError as error:
        if error.errno not in _PLACES:
            raise
        if _reports(error):
            place = error.filename or "A file"
            message = f"{place} cannot be read or written: {error.strerror}. Correct that"
            _log_to_file(f"{message}.")
            print(f"error: {message}, and run the same command again.", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt as stop:  # a trainer knows what is saved, and says so
        after = str(stop) or VERBS[arguments[0]].after_interrupt
        if _reports(stop):
            print(f"\ninterrupted; {after}", file=sys.stderr)
        return INTERRUPTED


def _one_of_several() -> bool:
    """Return True if torchrun started this process as one of several."""
    return os.environ.get("WORLD_SIZE", "1") not in ("", "1")


def _reports(error: BaseException) -> bool:
    """Return True if this process should say how its run ended: one of several does."""
    if not _one_of_several():
        return True
    from recbole_bbqrec.distributed.group import reports  # imports torch

    return reports(error)


def _overview() -> str:
    lines = ["usage: python -m recbole_bbqrec VERB [arguments]"]
    for purpose in dict.fromkeys(verb.purpose for verb in VERBS.values()):
        lines += ["", f"{purpose}:"]
        lines += [f"  {name:<11}{v.summary}" for name, v in VERBS.items() if v.purpose == purpose]
    return "\n".join([*lines, "", _GRAMMAR])


def _output_closed() -> bool:
    """Return True if standard output is a closed pipe, and silence further writes to it."""
    try:
        print(flush=True)  # fails again; if another pipe broke, it prints one empty line
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        return True
    return False


def _log_to_file(message: str) -> None:
    """Write the message to the run's log file too, if logging to a file has begun."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            record = logging.LogRecord("", logging.ERROR, "", 0, message, None, None)
            handler.emit(record)
