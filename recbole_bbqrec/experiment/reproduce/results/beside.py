"""Our values beside the paper's: cells, rows for CSV, and notes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable

from recbole_bbqrec.experiment.comparison.paired import Cell
from recbole_bbqrec.experiment.comparison.tables import Entry
from recbole_bbqrec.experiment.reproduce import paper
from recbole_bbqrec.experiment.reproduce.study import Result, Results, Setting


def relative(ours: float, printed: float) -> str:
    """Write ``+3.1%``, ours relative to the paper's; empty if that is 0."""
    return f"{ours / printed - 1:+.1%}" if printed else ""


def absolute(ours: float, printed: float) -> str:
    """Write ``+12``, ours minus the paper's; empty if they agree."""
    return f"{ours - printed:+,.0f}" if ours != printed else ""


@dataclass(frozen=True)
class Style:
    """Format of one kind of value."""

    number: Callable[[float], str] = "{:.4f}".format
    difference: Callable[[float, float], str] = relative

    def entry(self, cell: Cell, printed: float | None, reason: str, mark: str = "") -> Entry:
        """Write ``ours ± deviation / paper (difference)``, or ``reason`` if ours is missing."""
        if cell.mean is None:
            return Entry(reason or "-", "", "" if printed is None else f" / {self.number(printed)}")
        after = "" if cell.std is None else f" ± {self.number(cell.std)}"
        if cell.logs:
            after += f" ({len(cell.values)} of {len(cell.values) + len(cell.logs)} seeds)"
        if printed is not None:
            difference = self.difference(cell.mean, printed)
            after += f" / {self.number(printed)}" + (f" ({difference})" if difference else "")
        return Entry(self.number(cell.mean), mark, after)


METRIC = Style()


def csv_row(
    dataset: str, setting: Setting, figure: str, cell: Cell, printed: float | None, result: Result
) -> dict[str, Any]:
    """Return the row of one figure in full precision; ``status`` is the reason for none."""
    known = cell.mean is not None and printed is not None
    return {
        "dataset": dataset,
        "setting": setting.label,
        "model": setting.model,
        "figure": figure,
        "ours": cell.mean,
        "std": cell.std,
        "seeds": len(cell.values),
        "paper": printed,
        "difference": cell.mean - printed if known else None,  # type: ignore[operator]
        "status": result.status,
        "values": " ".join(map(repr, cell.values)),
    }


def notes(results: Results, table: str, dataset: str) -> list[str]:
    """Return notes on a data set: seeds, split, features, options, the paper's peculiarities."""
    runs, lines = results.finished(dataset), []
    if dataset in results.absent:
        lines.append(f"Only the paper's figures are shown: {results.absent[dataset]}")
    elif paper.has(table, dataset):
        lines.append("Cells: ours / the paper's (the difference, ours against the paper's).")
    else:
        lines.append(f"The paper has no such figures of {dataset}.")
    if runs:
        seeds = sorted({run.planned.config["seed"] for run in runs})
        several = f"Mean ± standard deviation over the seeds {', '.join(map(str, seeds))}."
        first = several if len(seeds) > 1 else f"Seed {seeds[0]}."
        lines.append(f"{first} Split {runs[0].planned.split_hash}.")
        features: dict[str, str] = {}
        for run in runs:
            for name, feature in (run.result or {}).get("features", {}).items():
                features[name] = f"{name}: {feature.get('encoder', 'unknown encoder')}"
        if features:
            lines.append(f"Item features: {'; '.join(features.values())}.")
    given = results.request.described()
    if given and dataset not in results.absent:
        lines.append(f"Options other than the defaults: {given}.")
    return [*lines, *paper.notes(table, dataset)]
