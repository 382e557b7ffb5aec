"""``python -m recbole_bbqrec evaluate``: finished runs under other options of evaluation."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from recbole_bbqrec.atomic import atomic_path
from recbole_bbqrec.config.values import parse_overrides
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.experiment.evaluate.options import CHANGEABLE, check_changeable

if TYPE_CHECKING:  # the command line starts without what a run needs
    from recbole_bbqrec.experiment.evaluate.evaluation import Evaluation

DESCRIPTION = """Evaluate the saved best models of finished runs again: on the test split, or with
--split valid on the validation split. Nothing is trained; works for RecBole's own models too."""

EPILOG = """\
Options that change neither the weights nor the split can be given as --key=value (with the equals
sign); an option that a model does not read is left out for it:

{options}

Runs of one model and configuration with several seeds get a row with their mean and sample
standard deviation. With several models on one data set, the first is tested against the best other
one of each metric by a paired t-test and a Wilcoxon signed-rank test, two-sided, over the users;
each user's value is first averaged over the seeds. Runs on one data set must have the same split.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``evaluate``; ``--key=value`` is left over for :func:`main`."""
    width = max(map(len, CHANGEABLE))
    lines = [f"  --{key + '=...':<{width + 4}}  {text}" for key, text in CHANGEABLE.items()]
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG.format(options="\n".join(lines))
    parser.add_argument(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="saved/<Model>-<time>, the .pth file beside it, or a run's directory in the store of "
        "`compare`",
    )
    parser.add_argument(
        "--split", choices=("valid", "test"), default="test", help="what to rank (default: test)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder for evaluation.csv, significance.csv where there are tests, and each run's "
        "per-user values (.npz)",
    )


def main(args: argparse.Namespace, rest: Sequence[str] = ()) -> int:
    """Evaluate every run, print the table and write the files.

    Args:
        args: of :func:`add_arguments`.
        rest: what they left over: ``--key=value``, and runs that stand behind one.

    Raises:
        UserError: an option cannot be changed, a run or its data are not as they must be, or the
            runs are not comparable.
    """
    values = parse_overrides(word for word in rest if word.startswith("-"))
    check_changeable(values)
    if args.output is not None and args.output.exists() and not args.output.is_dir():
        raise UserError(f"Option `--output` is {args.output}, a file; expected a folder.")
    from recbole_bbqrec.experiment.comparison.tables import markdown
    from recbole_bbqrec.experiment.evaluate.evaluation import evaluate
    from recbole_bbqrec.experiment.evaluate.jobs import find_jobs
    from recbole_bbqrec.experiment.evaluate.table import table

    paths = [*args.runs, *(Path(word) for word in rest if not word.startswith("-"))]
    jobs = find_jobs(paths, values, args.split)
    evaluations: list[Evaluation] = []
    for number, job in enumerate(jobs, start=1):
        print(f"evaluate: {number} of {len(jobs)}: {job.name}", file=sys.stderr)
        evaluations.append(evaluate(job, args.split))
    print(markdown(table(evaluations, args.split)))
    if args.output is not None:
        names = _write(evaluations, args.split, args.output)
        print(f"Written to {args.output}: {', '.join(names)}")
    return 0


def _write(evaluations: Sequence[Evaluation], split: str, output: Path) -> list[str]:
    """Write the files into ``output`` and return their names."""
    from recbole_bbqrec.experiment.comparison.report import verdict_rows
    from recbole_bbqrec.experiment.comparison.tables import csv_text
    from recbole_bbqrec.experiment.evaluate.table import comparisons, result_rows

    files: list[str | None] = []
    for one in evaluations:
        name = None
        if one.users is not None:
            label = re.sub(r"\W+", "-", one.model).strip("-")  # "BBQRec (2)"
            name = f"{one.dataset}-{label}-{one.seed}.{split}.npz"
            one.users.save(output / name)
        files.append(name)
    texts = {"evaluation.csv": csv_text(result_rows(evaluations, split, files))}
    verdicts = [row for each in comparisons(evaluations) for row in verdict_rows(each)]
    if verdicts:
        texts["significance.csv"] = csv_text(verdicts)
    for name, text in texts.items():
        with atomic_path(output / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return [*texts, *filter(None, files)]
