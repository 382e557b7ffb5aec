"""``python -m recbole_bbqrec compare``: models on data sets with several seeds, as one table."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Callable

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
from recbole_bbqrec.experiment.common_options import left_out
from recbole_bbqrec.experiment.comparison.by_target import (
    has_chart,
    save_target_chart,
    target_rows,
    target_tables,
)
from recbole_bbqrec.experiment.comparison.paired import check_comparable, summarise
from recbole_bbqrec.experiment.comparison.plan import plan, plan_lines
from recbole_bbqrec.experiment.comparison.report import (
    metrics_to_show,
    result_rows,
    save_chart,
    tables,
    verdict_rows,
)
from recbole_bbqrec.experiment.store.store import Planned
from recbole_bbqrec.metrics.names import metric_names
from recbole_bbqrec.model.registry import spec

NOTES = """\
Finished runs are kept and found again by their configuration, data and code version. So the same
command goes on after an interruption, and a model added later costs its own runs only. With other
`topk`, `metrics` or `eval_batch_size` and the same `valid_metric` a run is not trained again: its
weights are evaluated anew.

The table gives the mean and the sample standard deviation over the seeds; bold is the best,
underlined the second best. The target is tested against every other model by a paired t-test and a
Wilcoxon signed-rank test, two-sided, over the users of the test split; each user's value is first
averaged over the seeds, and the p-values of a metric are corrected for the number of models (Holm).
Metrics of a whole ranking, such as GiniIndex, are shown but neither ranked nor tested."""


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of ``compare``."""
    purpose = "Run models on data sets with several seeds, and compare them in one table."
    example = "--models=BBQRec,TIGER --datasets=Mini"
    describe(parser, purpose, example, NOTES, runs_can_fail=True)
    add = parser.group("what to run")
    add("--models", "MODEL", "BBQRec, SASRec, ...; `models` lists all", action=ListAction,
        required=True)  # fmt: skip
    add("--datasets", "NAME", "prepared data sets", action=ListAction, required=True)
    add_seeds_and_dry_run(add)
    add("--target", "MODEL", "model to test against the others (default: the first)")
    add = parser.group("output")
    add("--output", "DIR", "folder for results.csv, significance.csv, by_target.csv, table.md, "
        "table.tex and charts", type=Path, default=Path("comparison"))  # fmt: skip
    add("--show", "METRIC", "columns of the table and panels of the chart, such as "
        "recall@10,ndcg@10; results.csv has all (default: all, if they are more than six then up "
        "to four)", action=ListAction, default=[])  # fmt: skip
    add_run_store(parser)


def main(args: argparse.Namespace) -> int:
    """Run what is missing, then print and write the comparison.

    Raises:
        UserError: a name, option or file is wrong, or the runs cannot be compared.
    """
    datasets = _unique(args.datasets, "--datasets")
    models = [spec(name).name for name in _unique(args.models, "--models")]
    target = args.target or models[0]
    if target not in models:
        raise UserError(
            f"Option `--target` is {target}; expected one of --models: {', '.join(models)}."
            f"{did_you_mean(target, models)}"
        )
    refuse_file(args.output)
    store = run_store(args)
    common, own = model_options(args, models, datasets)
    planned = plan(store, models, datasets, args.seeds, args.config_files, common, own)
    check_comparable(planned)
    _check_shown(args.show, planned)
    lines, missing = plan_lines(store, planned)
    warnings = dict.fromkeys(text for run in planned for text in run.config.warnings)
    print("\n".join([*left_out(common, models, datasets), *warnings, *lines]))
    if args.dry_run:
        return 0
    outcomes = store.ensure(planned)
    comparison = summarise(outcomes, target)
    if missing:
        print()
    shown = metrics_to_show(comparison.metrics, args.show)
    by_target = target_rows(outcomes)
    charts: dict[str, Callable[[Path], None]] = {}
    for form in ("png", "svg"):
        if shown:
            charts[f"chart.{form}"] = partial(save_chart, comparison, shown=shown, form=form)
        if has_chart(outcomes):
            charts[f"targets.{form}"] = partial(save_target_chart, outcomes, form=form)
    print_results(
        args.output,
        [*tables(comparison, shown), *target_tables(outcomes)],
        {
            "results.csv": result_rows(comparison),
            "significance.csv": verdict_rows(comparison),
            **({"by_target.csv": by_target} if by_target else {}),
        },
        charts,
    )
    return FAILED if comparison.failed else 0


def _check_shown(asked: Sequence[str], planned: Sequence[Planned]) -> None:
    """Raise a UserError, before anything runs, for a metric of --show that is not measured."""
    for run in planned:
        names = metric_names(run.config["metrics"], run.config["topk"])
        metrics_to_show([name.lower() for name in names], asked)


def _unique(names: Sequence[str], option: str) -> list[str]:
    for name in names:
        if list(names).count(name) > 1:
            raise UserError(f"Option `{option}` names {name} twice; leave one out.")
    return list(names)
