"""``python -m recbole_bbqrec compare``: models on data sets with several seeds, as one table."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from recbole_bbqrec.atomic import atomic_path, write_text
from recbole_bbqrec.cli.arguments import FAILED, add_run_arguments, parse_settings
from recbole_bbqrec.errors import UserError, did_you_mean
from recbole_bbqrec.experiment.common_options import (
    check_common,
    left_out,
    seeds_of,
    taken_by,
)
from recbole_bbqrec.experiment.comparison.paired import Comparison, check_comparable, summarise
from recbole_bbqrec.experiment.comparison.report import (
    result_rows,
    save_chart,
    tables,
    verdict_rows,
)
from recbole_bbqrec.experiment.comparison.tables import csv_text, latex, markdown
from recbole_bbqrec.experiment.store.store import Planned, Run, RunStore
from recbole_bbqrec.model.registry import get_model

EPILOG = """\
Finished runs are kept and found again by their configuration, data and code version, so the same
command given again goes on where it was interrupted, and a model added later costs its own runs
only. Options for one model alone are written with its name: --set epochs=20 BBQRec.num_beams=50.
An option for all of them goes to those that read it, at least one.

The table gives the mean and the sample standard deviation over the seeds; bold is the best and
underlined the second best. The target is tested against the best other model of each metric by a
paired t-test and a Wilcoxon signed-rank test, two-sided, over the users of the test split; each
user's value is first averaged over the seeds. Metrics without a value a user, such as GiniIndex,
are shown but neither ranked nor tested.

Exit code: 0; 1 if a run failed (its cell names the log file); 2 for a mistake in the command.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``compare``."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument("--models", nargs="+", required=True, metavar="MODEL", help="see `models`")
    parser.add_argument("--datasets", nargs="+", required=True, metavar="NAME")
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=int,
        default=[1],
        metavar="N",
        help="one number: how many seeds, from the configured one up (default: 1); several "
        "numbers: the seeds themselves",
    )
    parser.add_argument("--target", metavar="MODEL", help="model to test (default: the first)")
    add_run_arguments(parser)
    parser.add_argument(
        "--output",
        default="comparison",
        metavar="DIR",
        help="folder for results.csv, significance.csv, table.md, table.tex and chart.png "
        "(default: comparison)",
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would run, and end")


def main(args: argparse.Namespace) -> int:
    """Run what is missing, then print and write the comparison.

    Raises:
        UserError: a name, option or file is not as it must be, or the runs are not comparable.
    """
    models, datasets = _unique(args.models, "--models"), _unique(args.datasets, "--datasets")
    target = args.target or models[0]
    if target not in models:
        raise UserError(
            f"Option `--target` is {target}; expected one of --models: {', '.join(models)}."
            f"{did_you_mean(target, models)}"
        )
    for model in models:
        get_model(model)  # an unknown one is refused before the data are read
    store = RunStore(args.runs, any_version=args.any_version)
    planned = plan(store, models, datasets, args)
    check_comparable(planned)
    missing = _print_plan(store, planned)
    if args.dry_run:
        return 0
    comparison = summarise(store.ensure(planned), target)
    if missing:
        print()
    write(comparison, Path(args.output))
    return FAILED if comparison.failed else 0


def plan(
    store: RunStore, models: Sequence[str], datasets: Sequence[str], args: argparse.Namespace
) -> list[Planned]:
    """Every run of the comparison, planned: data set by data set, model by model, seed by seed."""
    files = tuple(name for names in args.config_files for name in names.split())
    common, own = parse_settings(args.set, models)
    check_common(common, models, datasets)
    for line in left_out(common, models, datasets):
        print(line)
    planned = []
    for dataset in datasets:
        for model in models:
            options = {**taken_by(model, dataset, common), **own.get(model, {})}
            run = Run(model, dataset, options, files)
            for seed in seeds_of(args.seeds, run):
                planned.append(store.plan(Run(model, dataset, run.overrides, files, seed)))
    return planned


def write(comparison: Comparison, output: Path) -> None:
    """Print the tables, and write them with the chart into ``output``."""
    made = tables(comparison)
    text = "\n".join(map(markdown, made))
    print(text)
    write_text(output / "table.md", text)
    write_text(output / "table.tex", "\n".join(map(latex, made)))
    write_text(output / "results.csv", csv_text(result_rows(comparison)))
    write_text(output / "significance.csv", csv_text(verdict_rows(comparison)))
    names = ["table.md", "table.tex", "results.csv", "significance.csv"]
    if comparison.metrics:
        try:
            with atomic_path(output / "chart.png") as temporary:
                save_chart(comparison, temporary)
            names.append("chart.png")
        except ImportError:
            print("No chart: it needs matplotlib (pip install matplotlib).")
    print(f"Written to {output}: {', '.join(names)}")


# helpers --------------------------------------------------------------------------------------


def _unique(names: Sequence[str], option: str) -> list[str]:
    twice = [name for name in names if list(names).count(name) > 1]
    if twice:
        raise UserError(f"Option `{option}` names {twice[0]} twice; leave one out.")
    return list(names)


def _print_plan(store: RunStore, planned: Sequence[Planned]) -> int:
    """Say what is there and what will run; return how many will run."""
    there = {run.directory: store.find(run) is not None for run in planned}
    missing = sum(not found for found in there.values())
    print(f"{len(planned)} runs in {store.root}: {len(planned) - missing} there, {missing} to run")
    width = max(len(f"{run.run.dataset} {run.run.model}") for run in planned)
    groups: dict[str, list[str]] = {}
    for run in planned:
        word = "there" if there[run.directory] else "to run"
        seed = f"{run.config['seed']} {word}"
        groups.setdefault(f"{run.run.dataset} {run.run.model}", []).append(seed)
    for name, seeds in groups.items():
        print(f"  {name:<{width}}  seeds {', '.join(seeds)}")
    return missing
