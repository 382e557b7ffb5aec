"""Evaluations as a table and as rows for CSV."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from recbole_bbqrec.experiment.comparison.paired import Comparison, summarise
from recbole_bbqrec.experiment.comparison.report import (
    DECIMALS,
    cell_entry,
    cell_marks,
    metric_name,
    test_notes,
    verdict_lines,
)
from recbole_bbqrec.experiment.comparison.tables import Entry, Row, Table
from recbole_bbqrec.experiment.evaluate.evaluation import SPLITS, Evaluation
from recbole_bbqrec.experiment.evaluate.jobs import differing_options


def comparisons(evaluations: Sequence[Evaluation]) -> list[Comparison]:
    """Compare the models on each data set; the first model given is the one tested."""
    groups: dict[str, list[Evaluation]] = {}
    for run in evaluations:
        groups.setdefault(run.dataset, []).append(run)
    return [summarise(group, group[0].model) for group in groups.values()]


def table(evaluations: Sequence[Evaluation], split: str) -> Table:
    """Lay out a row per run, a row of means per model with several seeds, and the tests."""
    names = list(dict.fromkeys(name for run in evaluations for name in run.metrics))
    rows: list[Row] = []
    footer: list[Row] = []
    notes = []
    for comparison in comparisons(evaluations):
        (dataset,) = comparison.datasets
        runs = [run for run in evaluations if run.dataset == dataset]
        rows += _rows(comparison, runs, names)
        for title, *texts in verdict_lines(comparison, dataset, names):
            footer.append([title, dataset, "", "", *texts, ""])
        notes.append(_about(comparison, runs[0], split))
        notes += [*test_notes(comparison, dataset), *_configurations(runs)]
    notes += [note for run in evaluations for note in differences(run, split)]
    header = ["model", "data set", "seed", "options", *map(metric_name, names), "seconds"]
    where = ", ".join(dict.fromkeys(run.dataset for run in evaluations))
    return Table(f"{where}, {_SPLIT_NAMES[split]} split", header, rows, footer, notes)


def differences(run: Evaluation, split: str) -> list[str]:
    """Return a note if a model that ranks as in its run has other metrics than the run."""
    if not run.job.same_ranking:
        return []
    reported = run.job.finished.result.get(SPLITS[split]) or {}
    other = [
        f"{name} {reported[name]:.6f} then, {value:.6f} now"
        for name, value in run.metrics.items()
        if name in reported and reported[name] != value
    ]
    if not other:
        return []
    return [
        f"{run.job.name}: not the metrics of its result.json ({'; '.join(other)}). Possible "
        "causes: another machine, number of threads, batch size or version of the code."
    ]


def result_rows(
    evaluations: Sequence[Evaluation], split: str, files: Sequence[str | None]
) -> list[dict[str, Any]]:
    """Return rows for CSV, one per run and metric; ``files`` name the runs' per-user values."""
    return [
        {
            "run": str(run.job.path),
            "model": run.model,
            "dataset": run.dataset,
            "seed": run.seed,
            "split": split,
            "split_hash": run.split_hash,
            "options": _changed(run, leave_out=()),
            "metric": metric,
            "value": value,
            "users": None if run.users is None else len(run.users.users),
            "seconds": run.seconds,
            "per_user": name,
        }
        for run, name in zip(evaluations, files)
        for metric, value in run.metrics.items()
    ]


# helpers --------------------------------------------------------------------------------------

_SPLIT_NAMES = {"valid": "validation", "test": "test"}
_NOT_IN_TABLE = ("topk", "metrics", "data_path")  # the columns show the first two


def _rows(comparison: Comparison, runs: Sequence[Evaluation], names: Sequence[str]) -> list[Row]:
    (dataset,) = comparison.datasets
    cells, marks = {}, {}
    for metric in comparison.metrics:
        row = comparison.row(dataset, metric)
        ranked = (dataset, metric) in comparison.verdicts
        column = cell_marks(row) if ranked else [""] * len(row)
        for model, cell, mark in zip(comparison.models, row, column):
            cells[model, metric], marks[model, metric] = cell, mark
    rows: list[Row] = []
    for model in comparison.models:
        group = [run for run in runs if run.model == model]
        alone = len(group) == 1  # then its own row has the marks
        for run in group:
            values = [
                Entry(f"{run.metrics[name]:.{DECIMALS}f}", marks.get((model, name), "") * alone)
                if name in run.metrics
                else ""
                for name in names
            ]
            options = _changed(run, leave_out=_NOT_IN_TABLE) or "-"
            rows.append(
                [
                    model,
                    dataset,
                    str(run.seed),
                    options,
                    *values,
                    f"{run.seconds:.1f}",
                ]
            )
        if len(group) > 1:
            means = [
                cell_entry(cells[model, name], marks[model, name]) if (model, name) in cells else ""
                for name in names
            ]
            rows.append([model, dataset, f"mean of {len(group)}", "", *means, ""])
    return rows


def _about(comparison: Comparison, first: Evaluation, split: str) -> str:
    (dataset,) = comparison.datasets
    masked = first.job.config["mask_history"]
    ranking = "A user's history is left out of the ranking" if masked else "All items are ranked"
    spread = ""
    if any(len(cell.values) > 1 for cell in comparison.cells.values()):
        spread = " Means are with the sample standard deviation over the seeds."
    return f"{dataset}, split {comparison.splits[dataset]}. {ranking}.{spread}"


def _configurations(runs: Sequence[Evaluation]) -> list[str]:
    """Return notes on how the numbered configurations of one model differ."""
    first: dict[str, Evaluation] = {}
    shown: set[str] = set()
    notes = []
    for run in runs:
        other = first.setdefault(run.job.model, run)
        if run.model != other.model and run.model not in shown:
            shown.add(run.model)
            options = ", ".join(f"`{name}`" for name in differing_options(other.job, run.job))
            notes.append(f"{run.model} is {other.model} with other {options}.")
    return notes


def _changed(run: Evaluation, leave_out: Collection[str]) -> str:
    """Write the options that differ from the run's own."""
    changed = run.job.changed.items()
    return " ".join(f"{key}={_plain(value)}" for key, value in changed if key not in leave_out)


def _plain(value: Any) -> str:
    return f"[{','.join(map(str, value))}]" if isinstance(value, (list, tuple)) else str(value)
