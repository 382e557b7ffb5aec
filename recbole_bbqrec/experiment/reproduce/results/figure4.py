"""Figure 4: BBQRec without one of its signals."""

from __future__ import annotations

from functools import partial

from recbole_bbqrec.experiment.comparison.bars import Bars, save_bars
from recbole_bbqrec.experiment.comparison.report import metric_name
from recbole_bbqrec.experiment.comparison.tables import Table
from recbole_bbqrec.experiment.reproduce import paper
from recbole_bbqrec.experiment.reproduce.results import beside
from recbole_bbqrec.experiment.reproduce.results.metric_table import MetricTable
from recbole_bbqrec.experiment.reproduce.study import Report, Results, Setting

PLOTTED = ("recall@10", "ndcg@10")


class Figure4(MetricTable):
    """BBQRec without ID, text or image; data without a modality has no such variant."""

    name = "figure4"
    title = "Figure 4, BBQRec without a signal"
    settings = (
        Setting("w/o ID", "BBQRecNoID"),
        Setting("w/o text", "BBQRecNoText", needs="text"),
        Setting("w/o image", "BBQRecNoImage", needs="image"),
        Setting("BBQRec", "BBQRec"),
    )

    def report(self, results: Results) -> Report:
        plain = super().report(results)
        datasets = [name for name in results.request.datasets if results.finished(name)]
        charts = {}
        if datasets:
            panels = [[_bars(results, dataset, name) for name in PLOTTED] for dataset in datasets]
            title = f"BBQRec without one of its signals, {results.averaged()}"
            charts["figure4.png"] = partial(save_bars, title, panels)
        return Report(plain.tables, plain.rows, charts)

    def _printed(self, dataset: str, setting: Setting, name: str) -> float | None:
        """Return the value of Table 2 for BBQRec itself; the paper's chart has no numbers."""
        return paper.metric("table2", dataset, setting.label, name)

    def _table(self, results: Results, dataset: str) -> Table:
        table = super()._table(results, dataset)
        notes = [_finding(results, dataset), *table.notes]
        return Table(table.title, table.header, table.rows, table.footer, notes)


def _finding(results: Results, dataset: str) -> str:
    """Describe the order of the losses, ours and the paper's."""
    paper_order = "The paper's losses, the largest first: " + ", ".join(_order())
    cells = {s.label: results.of(dataset, s).metric("ndcg@10") for s in results.request.settings}
    whole = cells.pop("BBQRec", None)
    if whole is None or not whole.mean or not whole.complete:
        return f"{paper_order}; ours need a finished run of BBQRec itself."
    losses = {
        label: beside.relative(cell.mean, whole.mean)
        for label, cell in sorted(cells.items(), key=lambda pair: pair[1].mean or 0.0)
        if cell.complete and cell.mean is not None
    }
    ours = ", ".join(f"{label} ({change})" for label, change in losses.items())
    return f"{paper_order}. Ours by NDCG@10: {ours or 'none is known'}."


def _order() -> list[str]:
    return list(paper.figures()["figure4"]["order"])


def _bars(results: Results, dataset: str, name: str) -> Bars:
    settings = results.request.settings
    shown = [results.of(dataset, setting) for setting in settings]
    cells = [result.metric(name) for result in shown]
    return Bars(
        title=f"{dataset}, {metric_name(name)}",
        labels=[setting.label for setting in settings],
        values=[cell.mean for cell in cells],
        spread=[cell.std for cell in cells],
        reasons=[result.status for result in shown],
        highlight="BBQRec",
    )
