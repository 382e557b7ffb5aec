"""``python -m recbole_bbqrec reproduce``: an experiment of the paper, its figures beside ours."""

from __future__ import annotations

import argparse
from pathlib import Path

from recbole_bbqrec.cli.arguments import (
    add_run_store,
    add_seeds_and_dry_run,
    describe,
    model_options,
    print_results,
    refuse_file,
    run_store,
)
from recbole_bbqrec.cli.grammar import FAILED, CommandParser, ListAction
from recbole_bbqrec.errors import UserError, did_you_mean
from recbole_bbqrec.experiment.common_options import check_common, left_out
from recbole_bbqrec.experiment.reproduce.results.figure3 import SWEEPS, Figure3
from recbole_bbqrec.experiment.reproduce.results.figure4 import Figure4
from recbole_bbqrec.experiment.reproduce.results.ladder import Ladder
from recbole_bbqrec.experiment.reproduce.results.table1 import Table1
from recbole_bbqrec.experiment.reproduce.results.table2 import Table2
from recbole_bbqrec.experiment.reproduce.results.table3 import Table3
from recbole_bbqrec.experiment.reproduce.results.table4 import Table4
from recbole_bbqrec.experiment.reproduce.results.table5 import Table5
from recbole_bbqrec.experiment.reproduce.results.table6 import Table6
from recbole_bbqrec.experiment.reproduce.runs import carry_out, make_plan, print_plan
from recbole_bbqrec.experiment.reproduce.study import Request, Study

STUDIES: dict[str, Study] = {
    study.name: study
    for study in (
        Table1(), Table2(), Table3(), Table4(), Table5(), Table6(), Figure3(), Figure4(),
        Ladder(),
    )
}  # fmt: skip

NOTES = """\
WHAT is one of:

  table1   the data sets, counted as prepared; trains nothing
  table2   all models: Recall and NDCG at 5 and 10, BBQRec tested against the best other
  table3   variants of the tokenizer
  table4   variants of the generator
  table5   items that share their semantic ID, by its length; phase one alone
  table6   seconds a user at beams 50 and 100, on this machine
  figure3  BBQRec by length L, codebook size N, dimension D and similarity buckets K
  figure4  BBQRec without ID, text or image
  ladder   from BBQRec.paper.yaml to BBQRec, one addition a rung; not in the paper

Runs are kept as by `compare`, and shared with it. The same command, after an interruption or with a
larger budget, trains only what is missing. Neither the epochs nor any other option is changed to
fit a budget: the table says `not run` in the cells without a run."""


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of ``reproduce``."""
    purpose = "Run a table or figure of the paper, and show its figures beside ours."
    describe(parser, purpose, "table4 --datasets=Beauty --budget=60", NOTES, runs_can_fail=True)
    add = parser.group("what to run")
    add("what", "WHAT", "table1 to table6, figure3, figure4 or ladder")
    add("--datasets", "NAME", "data sets (default: those of the paper)", action=ListAction)
    add("--models", "MODEL", "only these models of the experiment, by their names there or here "
        "(default: all)", action=ListAction, default=[])  # fmt: skip
    add("--sweeps", "LETTER", f"of figure3, only these sweeps: {', '.join(SWEEPS)} (default: all)",
        action=ListAction, default=[])  # fmt: skip
    add_seeds_and_dry_run(add)
    add("--budget", "MINUTES", "start no run that would end later, judged by the time of similar "
        "runs (default: no limit)", type=float)  # fmt: skip
    add = parser.group("output")
    add("--output", "DIR", "folder for table.md, table.tex, results.csv and charts (default: "
        "reproduction/WHAT)", type=Path)  # fmt: skip
    add_run_store(parser)


def main(args: argparse.Namespace) -> int:
    """Run what is missing, then print and write the report.

    Raises:
        UserError: a name, option or file is wrong.
    """
    if args.what not in STUDIES:
        raise UserError(
            f"There is no `{args.what}` to reproduce; expected {', '.join(STUDIES)}."
            f"{did_you_mean(args.what, STUDIES)}"
        )
    study = STUDIES[args.what]
    if args.budget is not None and not args.budget > 0:
        raise UserError(f"Option `--budget` is {args.budget:g}; expected minutes above 0.")
    if args.budget is not None and args.ray is not None:
        raise UserError("Option `--budget` counts one run after another; leave it or --ray out.")
    output = args.output or Path("reproduction") / study.name
    refuse_file(output)
    settings = study.select(args.models, args.sweeps)
    models = list(dict.fromkeys(s.model for s in settings)) or ["BBQRec"]
    datasets = tuple(dict.fromkeys(args.datasets or study.datasets))
    common, own = model_options(args, models, datasets)
    check_common(common, models, datasets)
    for line in left_out(common, models, datasets):
        print(line)
    request = Request(
        datasets=datasets,
        settings=settings,
        seeds=tuple(args.seeds),
        config_files=tuple(args.config_files),
        common=common,
        own=own,
    )
    store = run_store(args)
    plan = make_plan(store, request)
    print_plan(store, plan)
    if args.dry_run:
        return 0
    results = carry_out(store, plan, args.budget)
    print()
    report = study.report(results)
    print_results(output, report.tables, {"results.csv": report.rows}, report.charts)
    return FAILED if results.failed else 0
