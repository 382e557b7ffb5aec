"""A comparison as tables, CSV rows and a chart."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recbole_bbqrec.errors import UserError, did_you_mean
from recbole_bbqrec.experiment.comparison.bars import Bars, save_bars
from recbole_bbqrec.experiment.comparison.paired import Cell, Comparison, Verdict
from recbole_bbqrec.experiment.comparison.tables import Entry, Row, Table, marks

DECIMALS = 4
LEVEL = 0.05  # level of significance
_MAX_SHOWN = 6  # columns that a page holds
_USUAL_KINDS = ("recall", "hit", "ndcg", "mrr")  # of many metrics the first two of these are shown
_USUAL_CUTOFFS = ("5", "10")


def tables(comparison: Comparison, shown: Sequence[str] | None = None) -> list[Table]:
    """Return a table per data set: models down, metrics across, then the target's verdicts.

    ``shown`` are the metrics to show, by default all; see :func:`metrics_to_show`.
    """
    metrics = comparison.metrics if shown is None else tuple(shown)
    return [_table(comparison, dataset, metrics) for dataset in comparison.datasets]


def metrics_to_show(metrics: Sequence[str], asked: Sequence[str]) -> list[str]:
    """Choose the columns of a table: those ``asked`` for, else all if they are few.

    Of more than six, up to two kinds of metrics are chosen at up to two cut-offs.

    >>> many = [f"{name}@{k}" for name in ("hit", "mrr", "ndcg") for k in (1, 5, 10, 20, 50)]
    >>> metrics_to_show(many, [])
    ['hit@5', 'hit@10', 'ndcg@5', 'ndcg@10']
    >>> metrics_to_show(many, ["MRR@20"])
    ['mrr@20']

    Raises:
        UserError: a metric that is asked for is not among ``metrics``.
    """
    by_name = {metric.lower(): metric for metric in metrics}
    for name in asked:
        if metrics and name.lower() not in by_name:
            raise UserError(
                f"Option `--show` has {name}, which is not measured; expected some of "
                f"{', '.join(metrics)}.{did_you_mean(name.lower(), by_name)} Others are measured "
                "with --metrics and --topk."
            )
    if asked or len(metrics) <= _MAX_SHOWN:
        return [by_name[name.lower()] for name in asked if metrics] or list(metrics)
    kinds = list(dict.fromkeys(metric.partition("@")[0] for metric in metrics))
    kinds = ([kind for kind in _USUAL_KINDS if kind in kinds] or kinds)[:2]
    of_kinds = [metric for metric in metrics if metric.partition("@")[0] in kinds]
    cutoffs = list(dict.fromkeys(metric.partition("@")[2] for metric in of_kinds))
    cutoffs = [k for k in cutoffs if k in _USUAL_CUTOFFS] or cutoffs[-2:]
    return [metric for metric in of_kinds if metric.partition("@")[2] in cutoffs]


def result_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Return rows for CSV, one per data set, model and metric, in full precision."""
    rows = []
    for dataset in comparison.datasets:
        for metric in comparison.metrics:
            cells = comparison.row(dataset, metric)
            marked = _column_marks(comparison, dataset, metric)
            for model, cell, mark in zip(comparison.models, cells, marked):
                rows.append(
                    {
                        "dataset": dataset,
                        "model": model,
                        "metric": metric,
                        "mean": cell.mean,
                        "std": cell.std,
                        "seeds": len(cell.values),
                        "failed": len(cell.logs),
                        "mark": mark,
                        "values": " ".join(map(repr, cell.values)),
                        "split": comparison.splits[dataset],
                    }
                )
    return rows


def verdict_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Return rows for CSV: the target against each other model, per data set and metric."""
    rows = []
    pairs = [(pair, each) for pair, verdicts in comparison.rivals.items() for each in verdicts]
    for (dataset, metric), verdict in pairs:
        test = verdict.test
        rows.append(
            {
                "dataset": dataset,
                "metric": metric,
                "target": comparison.target,
                "baseline": verdict.baseline,
                "improvement": verdict.improvement,
                "users": test.users,
                "mean_difference": test.difference,
                "t": test.t,
                "p_t_test": test.p_t,
                "p_wilcoxon": test.p_wilcoxon,
                "p_t_test_holm": verdict.p_t,
                "p_wilcoxon_holm": verdict.p_wilcoxon,
            }
        )
    return rows


def save_chart(
    comparison: Comparison, path: Path, shown: Sequence[str] | None = None, form: str = "png"
) -> None:
    """Draw the means with standard deviations as bars, a panel per data set and metric.

    Raises:
        ImportError: matplotlib is not installed.
    """
    panels = [
        [_bars(comparison, dataset, m) for m in (comparison.metrics if shown is None else shown)]
        for dataset in comparison.datasets
    ]
    count = len(comparison.seeds)
    over = "one seed" if count == 1 else f"mean and standard deviation over {count} seeds"
    save_bars(f"Test metrics, {over}", panels, path, form)


# helpers --------------------------------------------------------------------------------------


def _bars(comparison: Comparison, dataset: str, metric: str) -> Bars:
    cells = comparison.row(dataset, metric)
    return Bars(
        title=f"{dataset}, {metric_name(metric)}",
        labels=comparison.models,
        values=[cell.mean for cell in cells],
        spread=[cell.std for cell in cells],
        reasons=["failed"] * len(cells),
        highlight=comparison.target,
    )


def _table(comparison: Comparison, dataset: str, metrics: Sequence[str]) -> Table:
    columns = []  # a list of entries per metric
    for metric in metrics:
        cells = comparison.row(dataset, metric)
        marked = _column_marks(comparison, dataset, metric)
        columns.append([cell_entry(cell, mark) for cell, mark in zip(cells, marked)])
    rows: list[Row] = []
    for index, model in enumerate(comparison.models):
        logs = comparison.logs(dataset, model)
        entries = [column[index] for column in columns]
        if logs and not any(entry.text for entry in entries):
            entries = [
                Entry(f"failed: see {os.path.relpath(logs[0])}"),
                *[Entry("failed")] * (len(metrics) - 1),
            ]
        rows.append([model, *entries])
    header = ["model", *(map(metric_name, metrics) if metrics else ["result"])]
    footer = verdict_lines(comparison, dataset, metrics)
    return Table(
        f"{dataset}, test split", header, rows, footer, _notes(comparison, dataset, metrics)
    )


def verdict_lines(
    comparison: Comparison, dataset: str, metrics: Sequence[str]
) -> list[tuple[str, ...]]:
    """Return lines below a table: the target against the best baseline, a column per metric.

    Each line is a title and a text per metric, empty if there is no verdict. Without any verdict
    there are no lines.
    """
    verdicts = [comparison.verdicts.get((dataset, metric)) for metric in metrics]
    if not any(verdicts):
        return []
    return [
        ("best baseline", *(v.baseline if v else "" for v in verdicts)),
        (f"{comparison.target} over it", *map(_improvement, verdicts)),
        ("p, paired t-test", *(p_text(v.p_t if v else None) for v in verdicts)),
        ("p, Wilcoxon", *(p_text(v.p_wilcoxon if v else None) for v in verdicts)),
    ]


def cell_marks(cells: list[Cell]) -> list[str]:
    """Mark the best and second best of the complete cells of a column."""
    return marks([cell.mean if cell.complete else None for cell in cells], DECIMALS)


def _column_marks(comparison: Comparison, dataset: str, metric: str) -> list[str]:
    """Return the marks of a column of the table; none if more is not always better."""
    cells = comparison.row(dataset, metric)
    return cell_marks(cells) if (dataset, metric) in comparison.ranked else [""] * len(cells)


def cell_entry(cell: Cell, mark: str) -> Entry:
    """Write mean and standard deviation, and the number of finished seeds if not all."""
    if cell.mean is None:
        return Entry("")
    spread = "" if cell.std is None else f" ± {cell.std:.{DECIMALS}f}"
    if cell.logs:
        spread += f" ({len(cell.values)} of {len(cell.values) + len(cell.logs)} seeds)"
    return Entry(f"{cell.mean:.{DECIMALS}f}", mark, spread)


def _improvement(verdict: Verdict | None) -> str:
    if verdict is None or verdict.improvement is None:
        return ""
    better = verdict.improvement > 0
    star = "*" if better and verdict.p_t < LEVEL else ""
    return f"{verdict.improvement:+.1%}{star}"


def p_text(value: float | None) -> str:
    """Write a p-value."""
    if value is None:
        return "-"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def metric_name(metric: str) -> str:
    """Write ``ndcg@10`` as a column title, ``NDCG@10``."""
    name, at, k = metric.partition("@")
    return (name.upper() if name in ("ndcg", "mrr", "map", "gauc") else name.capitalize()) + at + k


def test_notes(comparison: Comparison, dataset: str) -> list[str]:
    """Return a note on the tests on a data set, if there are any."""
    rivals = [each for (d, _), each in comparison.rivals.items() if d == dataset]
    return [test_note(f"{each[0].test.users} users", len(each)) for each in rivals[:1]]


def test_note(users: str, models: int) -> str:
    """Explain the tests of the target against a number of other models, below a table."""
    many = f", corrected for {models} other models (Holm)" if models > 1 else ""
    return (
        f"Tests: two-sided, over {users}, each user's value averaged over the seeds; p-values of "
        f"one metric{many}; * better with p < {LEVEL} by the t-test."
    )


def _notes(comparison: Comparison, dataset: str, shown: Sequence[str]) -> list[str]:
    seeds = comparison.seeds
    if len(seeds) > 1:
        first = f"Mean ± standard deviation over the seeds {', '.join(map(str, seeds))}."
    else:
        first = f"Seed {seeds[0]}."
    notes = [f"{first} Split {comparison.splits[dataset]}."]
    notes += test_notes(comparison, dataset)
    others = len(comparison.metrics) - len(shown)
    if others:
        notes.append(f"{others} more metrics are in results.csv; --show chooses the columns.")
    unranked = [m for m in shown if (dataset, m) not in comparison.ranked]
    if unranked:
        names = ", ".join(map(metric_name, unranked))
        notes.append(f"Without per-user values, so neither ranked nor tested: {names}.")
    for model in comparison.models:
        logs = comparison.logs(dataset, model)
        if logs:
            notes.append(
                f"{model}: {len(logs)} of {len(seeds)} runs failed, so it is not ranked or "
                f"tested; see {', '.join(os.path.relpath(log) for log in logs)}."
            )
    return notes
