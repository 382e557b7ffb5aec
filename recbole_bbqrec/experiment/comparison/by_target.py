"""Metrics of several runs by kinds of test targets: of the same day or later, seen or not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from recbole_bbqrec.experiment.comparison.bars import Bars, save_bars
from recbole_bbqrec.experiment.comparison.paired import Tested
from recbole_bbqrec.experiment.comparison.report import DECIMALS, metric_name
from recbole_bbqrec.experiment.comparison.tables import Row, Table
from recbole_bbqrec.metrics.groups import LATER, SAME_DAY

CHARTED = (SAME_DAY, LATER)
_SHOWN = ("recall", "hit", "ndcg", "mrr")  # the first two that the runs have are shown


def target_tables(runs: Sequence[Tested]) -> list[Table]:
    """Return a table per data set: kinds of targets down, models across.

    Metrics are at the largest cut-off, means over the seeds. Data sets whose runs know nothing of
    their targets, such as those of earlier versions, have no table.
    """
    datasets = dict.fromkeys(run.dataset for run in runs)
    return [
        _table(dataset, known)
        for dataset in datasets
        if (known := [run for run in runs if run.dataset == dataset and run.by_target])
    ]


def save_target_chart(runs: Sequence[Tested], path: Path, form: str = "png") -> None:
    """Draw a row of panels per data set, same-day targets beside later ones, a bar per model.

    Raises:
        ImportError: matplotlib is not installed.
    """
    panels = []
    for dataset in dict.fromkeys(run.dataset for run in runs):
        known = [run for run in runs if run.dataset == dataset and run.by_target]
        if known:
            panels.append([_bars(known, group) for group in CHARTED])
    save_bars("Test targets by distance in time", panels, path, form)


def has_chart(runs: Sequence[Tested]) -> bool:
    """Return True if every data set with groups of targets has those of the chart."""
    known = [run for run in runs if run.by_target]
    return bool(known) and all(group in run.by_target for run in known for group in CHARTED)


def _bars(runs: Sequence[Tested], group: str) -> Bars:
    metric = _metrics(runs[0])[-1]
    models = list(dict.fromkeys(run.model for run in runs))
    values = [
        mean(run.by_target[group]["metrics"][metric] for run in runs if run.model == model)
        for model in models
    ]
    title = f"{runs[0].dataset}, {group}: {metric_name(metric)}"
    return Bars(title, models, values, [None] * len(models), [""] * len(models), models[0])


def target_rows(runs: Sequence[Tested]) -> list[dict[str, Any]]:
    """Return rows for CSV, one per run, kind of targets and metric."""
    return [
        {
            "dataset": run.dataset,
            "model": run.model,
            "seed": run.seed,
            "targets": group,
            "count": entry["targets"],
            "metric": metric,
            "value": value,
        }
        for run in runs
        for group, entry in run.by_target.items()
        for metric, value in entry["metrics"].items()
    ]


def _table(dataset: str, runs: Sequence[Tested]) -> Table:
    models = list(dict.fromkeys(run.model for run in runs))
    metrics = _metrics(runs[0])
    rows: list[Row] = []
    for group, entry in runs[0].by_target.items():
        cells = []
        for model in models:
            entries = [run.by_target.get(group) for run in runs if run.model == model]
            values = [
                mean(each["metrics"][name] for each in entries if each)
                for name in metrics
                if any(entries) and all(name in each["metrics"] for each in entries if each)
            ]
            cells.append(" / ".join(f"{value:.{DECIMALS}f}" for value in values))
        rows.append([group, f"{entry['targets']:,}", *cells])
    shown = " / ".join(map(metric_name, metrics))
    return Table(
        f"{dataset}, test targets by distance in time and by what training saw: {shown}",
        ["targets", "count", *models],
        rows,
        notes=(
            "Same day: the target lies on the day of the history's last item. Transition in "
            "training: the target follows the history's last item in some training history.",
        ),
    )


def _metrics(run: Tested) -> list[str]:
    names = list(run.by_target["all"]["metrics"])
    largest = max(int(name.rpartition("@")[2]) for name in names)
    kinds = [f"{kind}@{largest}" for kind in _SHOWN]
    return [name for name in kinds if name in names][:2] or names[-1:]
