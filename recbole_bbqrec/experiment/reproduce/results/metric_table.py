"""Tables 2 to 4: models down, metrics across, one table per data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable

from recbole_bbqrec.experiment.comparison.paired import Comparison, Verdict, summarise
from recbole_bbqrec.experiment.comparison.report import (
    DECIMALS,
    LEVEL,
    metric_name,
    p_text,
    test_note,
)
from recbole_bbqrec.experiment.comparison.tables import Row, Table, marks
from recbole_bbqrec.experiment.reproduce import paper
from recbole_bbqrec.experiment.reproduce.results import beside
from recbole_bbqrec.experiment.reproduce.study import Report, Results, Setting, Study

TARGET = "BBQRec"
Printed = Callable[[str, Setting, str], "float | None"]  # data set, setting, metric -> the paper's


class MetricTable(Study):
    """Study of models by their test metrics.

    If ``tested``, BBQRec is tested against the best other model, as in the paper's Table 2.
    """

    datasets = paper.DATASETS
    tested = False

    def report(self, results: Results) -> Report:
        tables = [self._table(results, dataset) for dataset in results.request.datasets]
        return Report(tables, csv_rows(results, self._printed))

    def _printed(self, dataset: str, setting: Setting, name: str) -> float | None:
        """Return the paper's value."""
        return paper.metric(self.name, dataset, setting.label, name)

    def _table(self, results: Results, dataset: str) -> Table:
        rows = metric_rows(results, dataset, results.request.settings, self._printed)
        comparison = _comparison(results, dataset) if self.tested else None
        footer = _footer(self.name, dataset, comparison) if comparison is not None else []
        notes = beside.notes(results, self.name, dataset)
        if comparison is not None and comparison.verdicts:
            notes.append(test_note("the test users", max(map(len, comparison.rivals.values()))))
        header = ["model", *map(metric_name, paper.METRICS)]
        return Table(f"{self.title}: {dataset}", header, rows, footer, notes)


def metric_rows(
    results: Results, dataset: str, settings: Sequence[Setting], printed: Printed
) -> list[Row]:
    """Return a row per setting, a column per metric; the first column shows missing runs."""
    shown = [results.of(dataset, setting) for setting in settings]
    columns = []
    for place, name in enumerate(paper.METRICS):
        cells = [result.metric(name) for result in shown]
        marked = marks([c.mean if c.complete else None for c in cells], DECIMALS)
        columns.append([
            beside.METRIC.entry(
                cell, printed(dataset, setting, name), result.status if place == 0 else "", mark
            )
            for setting, result, cell, mark in zip(settings, shown, cells, marked)
        ])  # fmt: skip
    return [[s.label, *row] for s, row in zip(settings, zip(*columns))]


def csv_rows(results: Results, printed: Printed) -> list[dict[str, Any]]:
    """Return rows for CSV, one per data set, setting and metric."""
    return [
        beside.csv_row(
            dataset, setting, name, result.metric(name), printed(dataset, setting, name), result
        )
        for dataset in results.request.datasets
        for setting in results.request.settings
        for result in [results.of(dataset, setting)]
        for name in paper.METRICS
    ]


def _comparison(results: Results, dataset: str) -> Comparison | None:
    """Summarise all runs on the data set; missing ones keep incomplete models from the tests."""
    runs = [
        run for setting in results.request.settings for run in results.of(dataset, setting).outcomes
    ]
    if TARGET not in {run.run.model for run in runs}:
        return None
    return summarise(runs, TARGET)


def _footer(table: str, dataset: str, comparison: Comparison) -> list[Row]:
    verdicts = [comparison.verdicts.get((dataset, name)) for name in paper.METRICS]
    printed = [_paper_improvement(table, dataset, name) for name in paper.METRICS]
    if not any(verdicts):
        return []
    return [
        ["best other model", *(v.baseline if v else "" for v in verdicts)],
        [f"{TARGET} over it / the paper's", *map(_improvement, verdicts, printed)],
        ["p, paired t-test", *(p_text(v.p_t if v else None) for v in verdicts)],
        ["p, Wilcoxon", *(p_text(v.p_wilcoxon if v else None) for v in verdicts)],
    ]


def _improvement(verdict: Verdict | None, printed: float | None) -> str:
    after = "" if printed is None else f" / {printed:+.1%}"
    if verdict is None or verdict.improvement is None:
        return f"-{after}"
    better = verdict.improvement > 0 and verdict.p_t < LEVEL
    return f"{verdict.improvement:+.1%}{'*' if better else ''}{after}"


def _paper_improvement(table: str, dataset: str, name: str) -> float | None:
    """Return BBQRec's improvement over the best other model by the paper's values."""
    rows = paper.figures()[table].get(dataset)
    if rows is None:
        return None
    at = paper.METRICS.index(name)
    best = max(row[at] for label, row in rows.items() if label != TARGET)
    return float(rows[TARGET][at] / best - 1)
