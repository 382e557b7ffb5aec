"""``python -m recbole_bbqrec report``: the report card of a finished run."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from recbole_bbqrec.atomic import write_text
from recbole_bbqrec.cli.arguments import describe, refuse_file
from recbole_bbqrec.cli.grammar import CommandParser
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.run_files.names import MODEL_CARD, REPORT_DATA, REPORT_PAGE

DESCRIPTION = """\
Write report.html, report.json and model_card.md for a finished run: learning curves, use of the
codes, collisions, strict and collision-lenient metrics, beam against exact scores, metrics by
history length and popularity, cold items, time and memory, ten example users. The page is one file
that needs no other. RecBole's own models get the sections that apply to them."""


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of ``report``."""
    describe(parser, DESCRIPTION, "saved/BBQRec-Nov-27-2026_10-00-00")
    add = parser.group("finished run")
    add("run", "RUN", "saved/<Model>-<time>, or the .pth file beside it", type=Path)
    add("--data_path", "DIR", "folder that holds the data sets, if it has moved (default: that of "
        "the run)")  # fmt: skip
    add("--sample", "USERS", "number of test users whose every item is scored exactly, to check "
        "the beam (default: as many as make about a million scores: all of Mini's users, 82 of "
        "Beauty's)", type=int)  # fmt: skip
    add = parser.group("output")
    add("--output", "DIR", "folder to write to (default: the run's)", type=Path)
    add("--pictures", None, "also write every chart as a file of its own, into pictures/ "
        "(default: none)",
        choices=("svg", "png"))  # fmt: skip


def main(args: argparse.Namespace) -> int:
    """Analyse the run and write both files.

    Raises:
        UserError: the run is not finished, a file is damaged or of another run, or the libraries
            that draw the page are not installed.
    """
    from recbole_bbqrec.experiment.report_card.charts import require_plots

    if args.sample is not None and args.sample < 1:
        raise UserError(f"Option `--sample` is {args.sample}; expected at least one user.")
    require_plots()
    from recbole_bbqrec.experiment.report_card.collect import collect
    from recbole_bbqrec.experiment.report_card.html import model_card, pictures, render
    from recbole_bbqrec.run_files.finished_run import FinishedRun

    run = FinishedRun.at(args.run)
    output = args.output or run.files.directory
    refuse_file(output)
    overrides = {} if args.data_path is None else {"data_path": args.data_path}
    report = collect(run, sample=args.sample, overrides=overrides, echo=_log)
    write_text(output / REPORT_DATA, json.dumps(report, indent=1, allow_nan=False) + "\n")
    write_text(output / REPORT_PAGE, render(report))
    write_text(output / MODEL_CARD, model_card(report))
    print("\n".join(str(output / name) for name in (REPORT_PAGE, REPORT_DATA, MODEL_CARD)))
    if args.pictures:
        drawn = pictures(report)
        for name, chart in drawn.items():
            chart.save(output / "pictures" / f"{name}.{args.pictures}")
        print(f"{output / 'pictures'}: {len(drawn)} pictures")
    return 0


def _log(text: str) -> None:
    print(f"report: {text}", file=sys.stderr)
