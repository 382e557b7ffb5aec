"""A comparison as tables, CSV rows and a chart."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recbole_bbqrec.experiment.comparison.paired import Cell, Comparison, Verdict
from recbole_bbqrec.experiment.comparison.tables import Entry, Row, Table, marks

DECIMALS = 4
LEVEL = 0.05  # level of significance


def tables(comparison: Comparison) -> list[Table]:
    """Return a table per data set: models down, metrics across, then the target's verdicts."""
    return [_table(comparison, dataset) for dataset in comparison.datasets]


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
    """Return rows for CSV: the target against the best baseline, per data set and metric."""
    rows = []
    for (dataset, metric), verdict in comparison.verdicts.items():
        test = verdict.test
        rows.append(
            {
                "dataset": dataset,
                "metric": metric,
                "target": comparison.target,
                "best_baseline": verdict.baseline,
                "improvement": verdict.improvement,
                "users": test.users,
                "mean_difference": test.difference,
                "t": test.t,
                "p_t_test": test.p_t,
                "p_wilcoxon": test.p_wilcoxon,
            }
        )
    return rows


def save_chart(comparison: Comparison, path: Path) -> None:
    """Draw the means with standard deviations as bars in a PNG, a panel per data set and metric.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    datasets, metrics, models = comparison.datasets, comparison.metrics, comparison.models
    height = 0.3 * len(models) + 0.75
    figure = Figure(
        figsize=(1.4 + 2.4 * len(metrics), 0.3 + height * len(datasets)),
        layout=ConstrainedLayoutEngine(h_pad=0.09),
    )
    axes = figure.subplots(len(datasets), len(metrics), squeeze=False, sharey="row")
    for across, dataset in zip(axes, datasets):
        for axis, metric in zip(across, metrics):
            _panel(axis, comparison, dataset, metric)
        across[0].set_yticks(range(len(models)), models)
        across[0].set_ylim(len(models) - 0.45, -0.55)  # the first model on top
    count = len(comparison.seeds)
    shown = "one seed" if count == 1 else f"mean and standard deviation over {count} seeds"
    figure.suptitle(f"Test metrics, {shown}", fontsize=10)
    figure.savefig(path, dpi=160, format="png")


# helpers --------------------------------------------------------------------------------------


def _panel(axis: Any, comparison: Comparison, dataset: str, metric: str) -> None:
    for place, (model, cell) in enumerate(zip(comparison.models, comparison.row(dataset, metric))):
        if cell.mean is None:
            axis.text(0, place, " failed", va="center", fontsize=8, color="#b3261e")
            continue
        colour = "#1f5fa8" if model == comparison.target else "#a9b4c0"
        style = {"ecolor": "#333333", "capsize": 2.5, "error_kw": {"elinewidth": 1}}
        axis.barh(place, cell.mean, xerr=cell.std, height=0.72, color=colour, **style)
        end = cell.mean + (cell.std or 0.0)
        axis.annotate(
            f"{cell.mean:.{DECIMALS}f}", (end, place), xytext=(4, 0), textcoords="offset points",
            va="center", fontsize=7.5,
        )  # fmt: skip
    axis.set_title(f"{dataset}, {metric_name(metric)}", fontsize=9)
    axis.margins(x=0.28)
    axis.set_xlim(left=0)
    axis.tick_params(labelsize=8)
    axis.tick_params(axis="y", length=0)
    axis.locator_params(axis="x", nbins=4)
    axis.spines[["top", "right"]].set_visible(False)


def _table(comparison: Comparison, dataset: str) -> Table:
    metrics = comparison.metrics
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
    return Table(f"{dataset}, test split", header, rows, footer, _notes(comparison, dataset))


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
    tests = [v.test if v else None for v in verdicts]
    return [
        ("best baseline", *(v.baseline if v else "" for v in verdicts)),
        (f"{comparison.target} over it", *map(_improvement, verdicts)),
        ("p, paired t-test", *(p_text(test.p_t if test else None) for test in tests)),
        ("p, Wilcoxon", *(p_text(test.p_wilcoxon if test else None) for test in tests)),
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
    star = "*" if better and verdict.test.p_t < LEVEL else ""
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
    tests = [v.test for (d, _), v in comparison.verdicts.items() if d == dataset]
    return [test_note(f"{test.users} users") for test in tests[:1]]


def test_note(users: str) -> str:
    """Explain the tests below a table."""
    return (
        f"Tests: two-sided, over {users}, each user's value averaged over the seeds; "
        f"* better with p < {LEVEL} by the t-test, not corrected for several tests."
    )


def _notes(comparison: Comparison, dataset: str) -> list[str]:
    seeds = comparison.seeds
    if len(seeds) > 1:
        first = f"Mean ± standard deviation over the seeds {', '.join(map(str, seeds))}."
    else:
        first = f"Seed {seeds[0]}."
    notes = [f"{first} Split {comparison.splits[dataset]}."]
    notes += test_notes(comparison, dataset)
    unranked = [m for m in comparison.metrics if (dataset, m) not in comparison.ranked]
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
