"""``python -m recbole_bbqrec report``: the report card of a finished run."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from recbole_bbqrec.atomic import write_text
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.run_files.names import REPORT_DATA, REPORT_PAGE

DESCRIPTION = """Write report.html and report.json for a finished run: learning curves, use of the
codes, collisions, strict and collision-lenient metrics, beam against exact scores, metrics by
history length and popularity, cold items, time and memory, ten example users. The page needs
nothing else to be read. Works for RecBole's own models too, with the sections that apply."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``report``."""
    parser.add_argument("run", type=Path, help="saved/<Model>-<time>, or the .pth file beside it")
    parser.add_argument(
        "--output", type=Path, metavar="DIRECTORY", help="where to write; default: the run's"
    )
    parser.add_argument(
        "--sample",
        type=int,
        metavar="USERS",
        help="test users for whom every item is scored exactly, to check the beam; default: about "
        "a million scores in all (all of Mini's users, 82 of Beauty's)",
    )
    parser.add_argument(
        "--data_path", metavar="DIRECTORY", help="where the data set is now, if it has moved"
    )


def main(args: argparse.Namespace) -> int:
    """Analyse the run and write both files.

    Raises:
        UserError: the run is not finished, a file is damaged or not its own, or the libraries
            that draw the page are not installed.
    """
    from recbole_bbqrec.experiment.report_card.charts import require_plots

    if args.sample is not None and args.sample < 1:
        raise UserError(f"Option `--sample` is {args.sample}; expected at least one user.")
    require_plots()
    from recbole_bbqrec.experiment.report_card.collect import collect
    from recbole_bbqrec.experiment.report_card.html import render
    from recbole_bbqrec.run_files.finished_run import FinishedRun

    run = FinishedRun.at(args.run)
    overrides: dict[str, Any] = {}
    if args.data_path is not None:
        overrides["data_path"] = args.data_path
    report = collect(run, sample=args.sample, overrides=overrides, echo=_say)
    output = args.output or run.files.directory
    write_text(output / REPORT_DATA, json.dumps(report, indent=1, allow_nan=False) + "\n")
    write_text(output / REPORT_PAGE, render(report))
    print(f"{output / 'report.html'}\n{output / 'report.json'}")
    return 0


def _say(text: str) -> None:
    print(f"report: {text}", file=sys.stderr)
