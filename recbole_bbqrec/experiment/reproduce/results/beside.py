"""Our figure beside the paper's: as a cell, as a row for CSV, and the notes below."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable

from recbole_bbqrec.experiment.comparison.paired import Cell
from recbole_bbqrec.experiment.comparison.tables import Entry
from recbole_bbqrec.experiment.reproduce import paper
from recbole_bbqrec.experiment.reproduce.study import Result, Results, Setting


def relative(ours: float, theirs: float) -> str:
    """``+3.1%``: ours in terms of the paper's; nothing where that is 0."""
    return f"{ours / theirs - 1:+.1%}" if theirs else ""


def absolute(ours: float, theirs: float) -> str:
    """``+12``: how many more ours is; nothing where they agree."""
    return f"{ours - theirs:+,.0f}" if ours != theirs else ""


@dataclass(frozen=True)
class Style:
    """How figures of one kind are written."""

    number: Callable[[float], str] = "{:.4f}".format
    difference: Callable[[float, float], str] = relative

    def entry(self, cell: Cell, theirs: float | None, why: str, mark: str = "") -> Entry:
        """``ours ± deviation / paper (difference)``; ``why`` stands where there is no figure."""
        if cell.mean is None:
            return Entry(why or "-", "", "" if theirs is None else f" / {self.number(theirs)}")
        after = "" if cell.std is None else f" ± {self.number(cell.std)}"
        if cell.logs:
            after += f" ({len(cell.values)} of {len(cell.values) + len(cell.logs)} seeds)"
        if theirs is not None:
            difference = self.difference(cell.mean, theirs)
            after += f" / {self.number(theirs)}" + (f" ({difference})" if difference else "")
        return Entry(self.number(cell.mean), mark, after)


METRIC = Style()


def csv_row(
    dataset: str, setting: Setting, what: str, cell: Cell, theirs: float | None, result: Result
) -> dict[str, Any]:
    """One figure in full precision; ``status`` says why there is none."""
    known = cell.mean is not None and theirs is not None
    return {
        "dataset": dataset,
        "setting": setting.label,
        "model": setting.model,
        "figure": what,
        "ours": cell.mean,
        "std": cell.std,
        "seeds": len(cell.values),
        "paper": theirs,
        "difference": cell.mean - theirs if known else None,  # type: ignore[operator]
        "status": result.status,
        "values": " ".join(map(repr, cell.values)),
    }


def notes(results: Results, table: str, dataset: str) -> list[str]:
    """What the figures of one data set are of: seeds, split, features, options, contradictions."""
    runs, said = results.finished(dataset), []
    if dataset in results.absent:
        said.append(f"Only the paper's figures are shown: {results.absent[dataset]}")
    elif paper.has(table, dataset):
        said.append("Cells: ours / the paper's (the difference, ours against the paper's).")
    else:
        said.append(f"The paper has no such figures of {dataset}.")
    if runs:
        seeds = sorted({run.planned.config["seed"] for run in runs})
        several = f"Mean ± standard deviation over the seeds {', '.join(map(str, seeds))}."
        first = several if len(seeds) > 1 else f"Seed {seeds[0]}."
        said.append(f"{first} Split {runs[0].planned.split_hash}.")
        features: dict[str, str] = {}
        for run in runs:
            for name, what in (run.result or {}).get("features", {}).items():
                features[name] = f"{name}: {what.get('encoder', 'unknown encoder')}"
        if features:
            said.append(f"Item features: {'; '.join(features.values())}.")
    given = results.request.described()
    if given and dataset not in results.absent:
        said.append(f"Not with the default options alone; given: {given}.")
    return [*said, *paper.notes(table, dataset)]
