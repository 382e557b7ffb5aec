"""Evaluations as one table, and as rows for CSV."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from recbole_bbqrec.experiment.comparison.paired import Comparison, summarise
from recbole_bbqrec.experiment.comparison.report import (
    DECIMALS,
    cell_marks,
    entry,
    metric_name,
    test_notes,
    verdict_lines,
)
from recbole_bbqrec.experiment.comparison.tables import Entry, Row, Table
from recbole_bbqrec.experiment.evaluate.evaluation import SPLITS, Evaluation
from recbole_bbqrec.experiment.evaluate.jobs import differing_options


def comparisons(evaluations: Sequence[Evaluation]) -> list[Comparison]:
    """One a data set, in order; the first model given of each is the one that is tested."""
    groups: dict[str, list[Evaluation]] = {}
    for one in evaluations:
        groups.setdefault(one.dataset, []).append(one)
    return [summarise(group, group[0].model) for group in groups.values()]


def table(evaluations: Sequence[Evaluation], split: str) -> Table:
    """A row a run, a row of means a model with several seeds, and the tests below."""
    names = list(dict.fromkeys(name for one in evaluations for name in one.metrics))
    rows: list[Row] = []
    footer: list[Row] = []
    notes = []
    for comparison in comparisons(evaluations):
        (dataset,) = comparison.datasets
        runs = [one for one in evaluations if one.dataset == dataset]
        rows += _rows(comparison, runs, names)
        for title, *texts in verdict_lines(comparison, dataset, names):
            footer.append([title, dataset, "", "", *texts, ""])
        notes.append(_about(comparison, runs[0], split))
        notes += [*test_notes(comparison, dataset), *_configurations(runs)]
    notes += [note for one in evaluations for note in differences(one, split)]
    header = ["model", "data set", "seed", "options", *map(metric_name, names), "seconds"]
    where = ", ".join(dict.fromkeys(one.dataset for one in evaluations))
    return Table(f"{where}, {_SPLIT_NAMES[split]} split", header, rows, footer, notes)


def differences(one: Evaluation, split: str) -> list[str]:
    """A note where a model that ranks as in its run has other metrics than the run reported."""
    if not one.job.same_ranking:
        return []
    reported = one.job.finished.result.get(SPLITS[split]) or {}
    other = [
        f"{name} {reported[name]:.6f} then, {value:.6f} now"
        for name, value in one.metrics.items()
        if name in reported and reported[name] != value
    ]
    if not other:
        return []
    return [
        f"{one.job.name}: not the metrics of its result.json ({'; '.join(other)}). Another "
        "machine, number of threads, batch size or version of the code can do that."
    ]


def result_rows(
    evaluations: Sequence[Evaluation], split: str, files: Sequence[str | None]
) -> list[dict[str, Any]]:
    """Rows for CSV: one a run and metric, in full; ``files`` name the runs' per-user values."""
    return [
        {
            "run": str(one.job.path),
            "model": one.model,
            "dataset": one.dataset,
            "seed": one.seed,
            "split": split,
            "split_hash": one.split_hash,
            "options": _changed(one, leave_out=()),
            "metric": metric,
            "value": value,
            "users": None if one.users is None else len(one.users.users),
            "seconds": one.seconds,
            "per_user": name,
        }
        for one, name in zip(evaluations, files)
        for metric, value in one.metrics.items()
    ]


# helpers --------------------------------------------------------------------------------------

_SPLIT_NAMES = {"valid": "validation", "test": "test"}
_SEEN_ELSEWHERE = ("topk", "metrics", "data_path")  # in the columns; where the data lie, nowhere


def _rows(comparison: Comparison, runs: Sequence[Evaluation], names: Sequence[str]) -> list[Row]:
    (dataset,) = comparison.datasets
    cells, marks = {}, {}
    for metric in comparison.metrics:
        row = comparison.row(dataset, metric)
        ranked = (dataset, metric) in comparison.verdicts
        found = cell_marks(row) if ranked else [""] * len(row)
        for model, cell, mark in zip(comparison.models, row, found):
            cells[model, metric], marks[model, metric] = cell, mark
    rows: list[Row] = []
    for model in comparison.models:
        group = [one for one in runs if one.model == model]
        alone = len(group) == 1  # then its own row is what is ranked
        for one in group:
            values = [
                Entry(f"{one.metrics[name]:.{DECIMALS}f}", marks.get((model, name), "") * alone)
                if name in one.metrics
                else ""
                for name in names
            ]
            options = _changed(one, leave_out=_SEEN_ELSEWHERE) or "-"
            rows.append([model, dataset, str(one.seed), options, *values, f"{one.seconds:.1f}"])
        if len(group) > 1:
            means = [
                entry(cells[model, name], marks[model, name]) if (model, name) in cells else ""
                for name in names
            ]
            rows.append([model, dataset, f"mean of {len(group)}", "", *means, ""])
    return rows


def _about(comparison: Comparison, first: Evaluation, split: str) -> str:
    (dataset,) = comparison.datasets
    masked = first.job.config["mask_history"]
    ranking = "A user's history is kept out of the ranking" if masked else "All items are ranked"
    spread = ""
    if any(len(cell.values) > 1 for cell in comparison.cells.values()):
        spread = " Means are with the sample standard deviation over the seeds."
    return f"{dataset}, split {comparison.splits[dataset]}. {ranking}.{spread}"


def _configurations(runs: Sequence[Evaluation]) -> list[str]:
    """What tells apart the numbered configurations of one model."""
    first: dict[str, Evaluation] = {}
    shown: set[str] = set()
    notes = []
    for one in runs:
        other = first.setdefault(one.job.model, one)
        if one.model != other.model and one.model not in shown:
            shown.add(one.model)
            options = ", ".join(f"`{name}`" for name in differing_options(other.job, one.job))
            notes.append(f"{one.model} is {other.model} with other {options}.")
    return notes


def _changed(one: Evaluation, leave_out: Collection[str]) -> str:
    """The options that differ from the run's own."""
    changed = one.job.changed.items()
    return " ".join(f"{key}={_plain(value)}" for key, value in changed if key not in leave_out)


def _plain(value: Any) -> str:
    return f"[{','.join(map(str, value))}]" if isinstance(value, (list, tuple)) else str(value)
