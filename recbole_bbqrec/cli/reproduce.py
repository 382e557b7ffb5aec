"""``python -m recbole_bbqrec reproduce``: an experiment of the paper, its figures beside ours."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from recbole_bbqrec.atomic import atomic_path
from recbole_bbqrec.cli.arguments import FAILED, add_run_arguments, parse_settings
from recbole_bbqrec.errors import UserError, did_you_mean
from recbole_bbqrec.experiment.common_options import check_common, left_out
from recbole_bbqrec.experiment.comparison.tables import csv_text, latex, markdown
from recbole_bbqrec.experiment.reproduce.results.figure3 import SWEEPS, Figure3
from recbole_bbqrec.experiment.reproduce.results.figure4 import Figure4
from recbole_bbqrec.experiment.reproduce.results.table1 import Table1
from recbole_bbqrec.experiment.reproduce.results.table2 import Table2
from recbole_bbqrec.experiment.reproduce.results.table3 import Table3
from recbole_bbqrec.experiment.reproduce.results.table4 import Table4
from recbole_bbqrec.experiment.reproduce.results.table5 import Table5
from recbole_bbqrec.experiment.reproduce.results.table6 import Table6
from recbole_bbqrec.experiment.reproduce.runs import carry_out, make_plan, print_plan
from recbole_bbqrec.experiment.reproduce.study import Report, Request, Study
from recbole_bbqrec.experiment.store.store import RunStore

STUDIES: dict[str, Study] = {
    study.name: study
    for study in (
        Table1(), Table2(), Table3(), Table4(), Table5(), Table6(), Figure3(), Figure4(),
    )
}  # fmt: skip

EPILOG = """\
  table1   the data sets, counted as prepared; trains nothing
  table2   all models: Recall and NDCG at 5 and 10, BBQRec tested against the best other
  table3   variants of the tokenizer
  table4   variants of the generator
  table5   items that share their semantic ID, by its length; phase one alone
  table6   seconds a user at beams 50 and 100, on this machine
  figure3  BBQRec by length L, codebook size N, dimension D and similarity buckets K
  figure4  BBQRec without ID, text or image

Runs are kept as by `compare`, and shared with it: the same command given again, after an
interruption or with a larger budget, trains only what is missing. Neither the number of epochs nor
any other option is changed to fit a budget; what did not run is an empty cell that says so.

Exit code: 0; 1 if a run failed (its cell names the log file); 2 for a mistake in the command.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``reproduce``."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument("what", metavar="WHAT", help="table1 to table6, figure3 or figure4: below")
    parser.add_argument(
        "--datasets", nargs="+", metavar="NAME", help="data sets (default: those of the paper)"
    )
    parser.add_argument(
        "--models",
        nargs="+",
        default=[],
        metavar="MODEL",
        help="only these models of the experiment, by their names there or here (default: all)",
    )
    parser.add_argument(
        "--sweeps",
        nargs="+",
        default=[],
        metavar="LETTER",
        help=f"of figure3, only these sweeps: {', '.join(SWEEPS)} (default: all)",
    )
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=int,
        default=[1],
        metavar="N",
        help="one number: how many seeds, from the configured one up (default: 1); several "
        "numbers: the seeds themselves",
    )
    parser.add_argument(
        "--budget",
        type=float,
        metavar="MINUTES",
        help="start no run that would end later, judged by the time of similar runs (default: "
        "no limit)",
    )
    add_run_arguments(parser)
    parser.add_argument(
        "--output",
        metavar="DIR",
        help="folder for table.md, table.tex, results.csv and charts (default: reproduction/WHAT)",
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would run, and end")


def main(args: argparse.Namespace) -> int:
    """Run what is missing, then print and write the report.

    Raises:
        UserError: a name, option or file is not as it must be.
    """
    study = _study(args.what)
    if args.budget is not None and not args.budget > 0:
        raise UserError(f"Option `--budget` is {args.budget:g}; expected minutes above 0.")
    settings = study.select(args.models, args.sweeps)
    models = list(dict.fromkeys(s.model for s in settings)) or ["BBQRec"]
    common, own = parse_settings(args.set, models)
    request = Request(
        datasets=tuple(dict.fromkeys(args.datasets or study.datasets)),
        settings=settings,
        seeds=tuple(args.seeds),
        config_files=tuple(name for names in args.config_files for name in names.split()),
        common=common,
        own=own,
    )
    check_common(common, models, request.datasets)
    for line in left_out(common, models, request.datasets):
        print(line)
    store = RunStore(args.runs, any_version=args.any_version)
    plan = make_plan(store, request)
    print_plan(store, plan)
    if args.dry_run:
        return 0
    results = carry_out(store, plan, args.budget)
    print()
    write(study.report(results), Path(args.output or Path("reproduction") / study.name))
    return FAILED if results.failed else 0


def write(report: Report, output: Path) -> None:
    """Print the tables, and write them with the charts into ``output``."""
    text = "\n".join(map(markdown, report.tables))
    print(text)
    contents = {
        "table.md": text,
        "table.tex": "\n".join(map(latex, report.tables)),
        "results.csv": csv_text(report.rows),
    }
    for name, content in contents.items():
        with atomic_path(output / name) as temporary:
            temporary.write_text(content, encoding="utf-8")
    drawn = [name for name, draw in report.charts.items() if _draw(draw, output / name)]
    if len(drawn) < len(report.charts):
        print("No chart: it needs matplotlib (pip install matplotlib).")
    print(f"Written to {output}: {', '.join([*contents, *drawn])}")


def _draw(draw: Callable[[Path], None], path: Path) -> bool:
    try:
        with atomic_path(path) as temporary:
            draw(temporary)
    except ImportError:
        return False
    return True


def _study(name: str) -> Study:
    if name not in STUDIES:
        hint = did_you_mean(name, STUDIES)
        raise UserError(f"There is no `{name}` to reproduce; expected {', '.join(STUDIES)}.{hint}")
    return STUDIES[name]
