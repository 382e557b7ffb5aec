"""``python -m recbole_bbqrec evaluate``: finished runs under other options of evaluation."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from recbole_bbqrec.atomic import write_text
from recbole_bbqrec.cli.arguments import describe, refuse_file, refuse_misspelt
from recbole_bbqrec.cli.grammar import CommandParser
from recbole_bbqrec.config.values import parse_overrides
from recbole_bbqrec.experiment.evaluate.options import CHANGEABLE, check_changeable

if TYPE_CHECKING:  # the command line starts without what a run needs
    from recbole_bbqrec.experiment.evaluate.evaluation import Evaluation

DESCRIPTION = """\
Evaluate the saved best models of finished runs again, on the test or the validation split. Nothing
is trained. RecBole's own models can be evaluated too."""

OPTIONS = """\
As --key=value with the equals sign, these options; none changes the weights or the split. A model
that does not read an option is evaluated without it.

{options}"""

NOTES = """\
Runs of one model and configuration with several seeds get a row with their mean and sample standard
deviation. With several models on one data set, the first is tested against every other one
by a paired t-test and a Wilcoxon signed-rank test, two-sided, over the users; each user's value is
first averaged over the seeds, and the p-values of a metric are corrected for the number of models
(Holm). Runs on one data set must have the same split."""


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of ``evaluate``."""
    describe(parser, DESCRIPTION, "saved/RUN --num_beams=50", NOTES)
    add = parser.group("finished runs")
    add("runs", "RUN", "saved/<Model>-<time>, the .pth file beside it, or a run's folder in the "
        "store of `compare`", nargs="+", type=Path)  # fmt: skip
    add("--split", None, "the split to rank", choices=("valid", "test"), default="test")
    add = parser.group("output")
    add("--output", "DIR", "folder for evaluation.csv, by_target.csv, significance.csv where there "
        "are tests, and per-user values as .npz (default: print only)", type=Path)  # fmt: skip
    width = max(map(len, CHANGEABLE))
    lines = [f"  --{key + '=...':<{width + 4}}  {text}" for key, text in CHANGEABLE.items()]
    parser.group("model options", OPTIONS.format(options="\n".join(lines)))


def main(args: argparse.Namespace) -> int:
    """Evaluate every run, print the table and write the files.

    Raises:
        UserError: an option cannot be changed, a run or its data are damaged or absent, or the
            runs cannot be compared.
    """
    refuse_misspelt(args, CHANGEABLE)
    values = parse_overrides(args.options)
    check_changeable(values)
    refuse_file(args.output)
    from recbole_bbqrec.experiment.comparison.by_target import target_tables
    from recbole_bbqrec.experiment.comparison.tables import markdown
    from recbole_bbqrec.experiment.evaluate.evaluation import evaluate
    from recbole_bbqrec.experiment.evaluate.jobs import find_jobs
    from recbole_bbqrec.experiment.evaluate.table import table

    jobs = find_jobs(args.runs, values, args.split)
    evaluations: list[Evaluation] = []
    for number, job in enumerate(jobs, start=1):
        print(f"evaluate: {number} of {len(jobs)}: {job.name}", file=sys.stderr)
        evaluations.append(evaluate(job, args.split))
    for each in [table(evaluations, args.split), *target_tables(evaluations)]:
        print(markdown(each))
    if args.output is not None:
        names = _write(evaluations, args.split, args.output)
        print(f"Written to {args.output}: {', '.join(names)}")
    return 0


def _write(evaluations: Sequence[Evaluation], split: str, output: Path) -> list[str]:
    """Write the files into ``output`` and return their names."""
    from recbole_bbqrec.experiment.comparison.by_target import target_rows
    from recbole_bbqrec.experiment.comparison.report import verdict_rows
    from recbole_bbqrec.experiment.comparison.tables import csv_text
    from recbole_bbqrec.experiment.evaluate.table import comparisons, result_rows

    files: list[str | None] = []
    for evaluation in evaluations:
        name = None
        if evaluation.users is not None:
            label = re.sub(r"\W+", "-", evaluation.model).strip("-")  # "BBQRec (2)"
            name = f"{evaluation.dataset}-{label}-{evaluation.seed}.{split}.npz"
            evaluation.users.save(output / name)
        files.append(name)
    texts = {"evaluation.csv": csv_text(result_rows(evaluations, split, files))}
    verdicts = [row for each in comparisons(evaluations) for row in verdict_rows(each)]
    if verdicts:
        texts["significance.csv"] = csv_text(verdicts)
    targets = target_rows(evaluations)
    if targets:
        texts["by_target.csv"] = csv_text(targets)
    for name, text in texts.items():
        write_text(output / name, text)
    return [*texts, *filter(None, files)]
