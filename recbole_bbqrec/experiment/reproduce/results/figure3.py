"""Figure 3: BBQRec with one of L, N, D and K changed at a time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.experiment.comparison.report import DECIMALS, metric_name
from recbole_bbqrec.experiment.comparison.tables import BEST, Table, marks
from recbole_bbqrec.experiment.reproduce import paper
from recbole_bbqrec.experiment.reproduce.charts import Line, save_lines
from recbole_bbqrec.experiment.reproduce.results import beside
from recbole_bbqrec.experiment.reproduce.results.metric_table import csv_rows, metric_rows
from recbole_bbqrec.experiment.reproduce.study import Report, Results, Setting, Study

SWEEPS: dict[str, tuple[str, tuple[int, ...], str]] = {
    "L": ("codebook_levels", (1, 2, 3, 4), "length L"),
    "N": ("codebook_size", (64, 128, 256, 512), "codebook size N"),
    "D": ("codebook_dim", (32, 64, 128, 256), "code dimension D"),
    "K": ("similarity_buckets", (10, 50, 100, 200), "similarity buckets K"),
}
PLOTTED = ("recall@10", "ndcg@10")


class Figure3(Study):
    """Sweeps around the configured values, by default the paper's."""

    name = "figure3"
    title = "Figure 3, BBQRec by"
    datasets = ("Beauty",)
    settings = tuple(
        Setting(f"{sweep}={value}", "BBQRec", {option: value}, sweep, value)
        for sweep, (option, values, _) in SWEEPS.items()
        for value in values
    )

    def select(self, models: Sequence[str], sweeps: Sequence[str]) -> tuple[Setting, ...]:
        """Return the settings of ``sweeps``, all if empty.

        Raises:
            UserError: a model other than BBQRec, or an unknown sweep.
        """
        if set(models) - {"BBQRec"}:
            raise UserError(f"Option `--models` is {' '.join(models)}; figure3 is of BBQRec alone.")
        return self._chosen(sweeps, "--sweeps", lambda setting: {setting.name})

    def report(self, results: Results) -> Report:
        datasets = results.request.datasets
        sweeps = list(dict.fromkeys(setting.name for setting in results.request.settings))
        tables = [_table(self, results, dataset, sweep) for dataset in datasets for sweep in sweeps]
        rows = csv_rows(results, _paper)
        charts = {
            f"figure3-{dataset}.png": partial(
                save_lines,
                f"BBQRec on {dataset}, one value changed at a time, {results.averaged()}",
                [[_line(results, dataset, sweep, name) for sweep in sweeps] for name in PLOTTED],
            )
            for dataset in datasets
            if results.finished(dataset)
        }  # fmt: skip
        return Report(tables, rows, charts)


def _sweep(results: Results, sweep: str) -> list[Setting]:
    return [setting for setting in results.request.settings if setting.name == sweep]


def _table(study: Study, results: Results, dataset: str, sweep: str) -> Table:
    settings = _sweep(results, sweep)
    rows = metric_rows(results, dataset, settings, _paper)
    notes = [_finding(results, dataset, sweep), *beside.notes(results, study.name, dataset)]
    header = [SWEEPS[sweep][2], *map(metric_name, paper.METRICS)]
    return Table(f"{study.title} {SWEEPS[sweep][2]}: {dataset}", header, rows, (), notes)


def _finding(results: Results, dataset: str, sweep: str) -> str:
    """Describe the best values, ours and the paper's."""
    best = paper.figures()["figure3"]["best"][sweep]
    paper_best = f"The paper's best on Beauty is {sweep}={best}"
    settings = _sweep(results, sweep)
    cells = [results.of(dataset, setting).metric("ndcg@10") for setting in settings]
    if not all(cell.complete for cell in cells):
        return f"{paper_best}; ours is not known until all values have run."
    marked = marks([cell.mean for cell in cells], DECIMALS)
    ours = [s.label for s, mark in zip(settings, marked) if mark == BEST]
    return f"{paper_best}; ours by NDCG@10 on {dataset} is {' and '.join(ours)}."


def _paper(dataset: str, setting: Setting, name: str) -> float | None:
    """Return the paper's value, known only at the best value of a sweep: that of Table 2."""
    best: dict[str, Any] = paper.figures()["figure3"]["best"]
    if dataset != "Beauty" or best[setting.name] != setting.value:
        return None
    return paper.metric("table2", dataset, "BBQRec", name)


def _line(results: Results, dataset: str, sweep: str, name: str) -> Line:
    settings = _sweep(results, sweep)
    cells = [results.of(dataset, setting).metric(name) for setting in settings]
    return Line(
        x_name=SWEEPS[sweep][2],
        y_name=metric_name(name),
        x=[str(setting.value) for setting in settings],
        y=[cell.mean for cell in cells],
        spread=[cell.std for cell in cells],
        paper=[_paper(dataset, setting, name) for setting in settings],
        paper_best=str(paper.figures()["figure3"]["best"][sweep]),
    )
