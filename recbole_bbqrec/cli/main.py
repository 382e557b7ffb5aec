"""Command line: ``python -m recbole_bbqrec <verb>``.

``run`` trains and tests a model (``run_recbole_bbqrec.py`` is the same); ``evaluate`` evaluates
finished runs again under other options; ``report`` writes the report card of a finished run;
``compare`` runs several models with several seeds and tests who is better; ``reproduce`` runs a
table or figure of the paper; ``tune`` searches a model's options; ``prepare`` makes a data set;
``inspect`` shows one; ``models`` lists what can be run.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from recbole_bbqrec.cli.arguments import CLOSED_PIPE, INTERRUPTED, USER_ERROR
from recbole_bbqrec.errors import UserError

_GOING_ON = {
    "run": "the last finished epoch is saved. Run the same command with --resume=auto to go on.",
    "compare": "the last finished epoch is saved. Run the same command to go on.",
    "reproduce": "the last finished epoch is saved. Run the same command to go on.",
    "tune": "the last finished epoch is saved. Run the same command to go on.",
    "prepare": "the same command goes on with what was downloaded and encoded.",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code: 0, 2 for a user error, 130 when interrupted.

    ``compare``, ``reproduce`` and ``tune`` return 1 when a run of theirs failed. 141 is for output
    that nobody reads any more, as of ``inspect NAME | head``.
    """
    try:
        code = _main(arguments)
        if sys.stdout is not None:  # as it is where the caller closed it
            sys.stdout.flush()  # here: when the interpreter ends, a closed pipe is a message
        return code
    except BrokenPipeError:
        if not _output_closed():
            raise
        return CLOSED_PIPE


def _main(arguments: Sequence[str] | None) -> int:
    argv = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser()
    known, rest = parser.parse_known_args(argv)
    if known.verb is None:
        parser.print_help()
        return USER_ERROR
    try:
        if known.verb == "run":
            return _run(known, rest)
        if known.verb == "evaluate":
            return int(known.entry(known, rest))
        if rest:
            raise UserError(f"Cannot read the argument `{rest[0]}`; see `{known.verb} --help`.")
        return int(known.entry(known) or 0)
    except UserError as error:
        _log_to_file(str(error))
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print(
            f"\ninterrupted; {_GOING_ON.get(known.verb, 'nothing was left half-done.')}",
            file=sys.stderr,
        )
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    from recbole_bbqrec.cli import compare as compare_cli
    from recbole_bbqrec.cli import evaluate as evaluate_cli
    from recbole_bbqrec.cli import inspect_data as inspect_cli
    from recbole_bbqrec.cli import models as models_cli
    from recbole_bbqrec.cli import prepare as prepare_cli
    from recbole_bbqrec.cli import report_card as report_cli
    from recbole_bbqrec.cli import reproduce as reproduce_cli
    from recbole_bbqrec.cli import tune as tune_cli

    parser = argparse.ArgumentParser(prog="python -m recbole_bbqrec", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    run = verbs.add_parser(
        "run",
        help="train and test a model",
        description="Train and test a model. Any option of the YAML files can be given as "
        "--key=value (with the equals sign).",
        allow_abbrev=False,
    )
    run.add_argument("--model", "-m", help="registered model: BBQRec, SASRec, ... (see `models`)")
    run.add_argument("--dataset", "-d", help="data set: <data_path>/<dataset>/<dataset>.inter")
    run.add_argument("--config_files", default="", help='YAML files: "a.yaml b.yaml", later wins')
    run.add_argument(
        "--prepare",
        nargs="?",
        const="True",
        metavar="BOOL",
        help="make the data set first if it is absent (an Amazon category is downloaded)",
    )
    evaluate = verbs.add_parser(
        "evaluate",
        help="evaluate finished runs again, under other options",
        description=evaluate_cli.DESCRIPTION,
        allow_abbrev=False,
    )
    evaluate_cli.add_arguments(evaluate)
    evaluate.set_defaults(entry=evaluate_cli.main)
    compare = verbs.add_parser(
        "compare",
        help="compare models over data sets and seeds, with significance tests",
        description="Run models on data sets with several seeds, and compare them in one table.",
    )
    compare_cli.add_arguments(compare)
    compare.set_defaults(entry=compare_cli.main)
    tune = verbs.add_parser(
        "tune",
        help="search a model's options on the validation split",
        description="Search the options of one model on one data set by its validation metric.",
    )
    tune_cli.add_arguments(tune)
    tune.set_defaults(entry=tune_cli.main)
    reproduce = verbs.add_parser(
        "reproduce",
        help="run a table or figure of the paper, its figures beside ours",
        description="Run a table or figure of the paper and show its figures beside ours.",
    )
    reproduce_cli.add_arguments(reproduce)
    reproduce.set_defaults(entry=reproduce_cli.main)
    prepare = verbs.add_parser("prepare", help="make a data set from source files")
    prepare_cli.add_arguments(prepare)
    prepare.set_defaults(entry=prepare_cli.main)
    inspect = verbs.add_parser("inspect", help="statistics and item neighbours of a data set")
    inspect_cli.add_arguments(inspect)
    inspect.set_defaults(entry=inspect_cli.main)
    models = verbs.add_parser("models", help="list the models with their signals and sources")
    models_cli.add_arguments(models)
    models.set_defaults(entry=models_cli.main)
    report = verbs.add_parser(
        "report", help="write the report card of a run", description=report_cli.DESCRIPTION
    )
    report_cli.add_arguments(report)
    report.set_defaults(entry=report_cli.main)
    return parser


def _run(known: argparse.Namespace, rest: list[str]) -> int:
    from recbole_bbqrec.config.values import parse_overrides
    from recbole_bbqrec.quick_start import run

    if known.prepare is not None:
        rest = [*rest, f"--prepare={known.prepare}"]
    overrides = parse_overrides(rest)
    run(known.model, known.dataset, known.config_files.split(), overrides)
    return 0


def _output_closed() -> bool:
    """Whether nobody reads standard output; what is left for it then goes nowhere."""
    try:
        print(flush=True)  # fails again; a pipe of another kind gets no more than an empty line
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        return True
    return False


def _log_to_file(message: str) -> None:
    """Leave the message in the run's log file too, if the run got as far as having one."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            record = logging.LogRecord("", logging.ERROR, "", 0, message, None, None)
            handler.emit(record)


if __name__ == "__main__":
    sys.exit(main())
