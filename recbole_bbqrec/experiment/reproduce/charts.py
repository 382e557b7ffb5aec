"""Chart of figure 3 as PNG; matplotlib is imported when it is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_bbqrec import palette

_OURS, _PAPER = palette.BLUE, palette.VERMILION
Values = Sequence[Any]  # float, or None if there is no value


@dataclass(frozen=True)
class Line:
    """One panel of a sweep: ``y`` and its standard deviation ``spread`` at the labels ``x``.

    ``paper`` has the paper's values at the same labels, ``paper_best`` its best label.
    """

    x_name: str
    y_name: str
    x: Sequence[str]
    y: Values
    spread: Values
    paper: Values
    paper_best: str


def save_lines(title: str, panels: Sequence[Sequence[Line]], path: Path) -> None:
    """Draw a grid of sweeps: a row per metric, a column per sweep.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    rows, columns = len(panels), len(panels[0])
    size = (0.9 + 2.5 * columns, 0.9 + 2.0 * rows)
    figure = Figure(figsize=(max(size[0], 4.6), size[1]), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex="col", sharey="row")
    for across, lines in zip(axes, panels):
        for axis, line in zip(across, lines):
            _draw_line(axis, line)
        across[0].set_ylabel(lines[0].y_name, fontsize=9)
    for axis, line in zip(axes[-1], panels[-1]):
        axis.set_xlabel(line.x_name, fontsize=9)
    handles: dict[str, Any] = {}
    for axis in axes.flat:
        handles.update({label: handle for handle, label in zip(*axis.get_legend_handles_labels())})
    figure.suptitle(title, fontsize=10)
    figure.legend(
        list(handles.values()), list(handles), loc="outside lower center", ncols=3, fontsize=8,
        frameon=False,
    )  # fmt: skip
    figure.savefig(path, dpi=160, format="png")


def _draw_line(axis: Any, line: Line) -> None:
    places = range(len(line.x))
    known = [place for place in places if line.y[place] is not None]
    several = any(spread is not None for spread in line.spread)  # one seed has no deviation
    axis.errorbar(
        known, [line.y[p] for p in known],
        yerr=[line.spread[p] or 0.0 for p in known] if several else None,
        color=_OURS, marker="o", markersize=4, linewidth=1.4, capsize=2.5, label="ours",
    )  # fmt: skip
    if line.paper_best in line.x:
        axis.axvline(
            line.x.index(line.paper_best), color=_PAPER, linestyle=":", linewidth=1.2,
            label="the paper's best on Beauty",
        )  # fmt: skip
    printed = [place for place in places if line.paper[place] is not None]
    if printed:
        axis.plot(
            printed, [line.paper[p] for p in printed], linestyle="none", marker="*", markersize=9,
            color=_PAPER, label="the paper (its Table 2)",
        )  # fmt: skip
    axis.set_xticks(list(places), line.x)
    axis.set_xlim(-0.4, len(line.x) - 0.6)
    axis.margins(y=0.15)
    axis.tick_params(labelsize=8)
    axis.locator_params(axis="y", nbins=5)
    axis.grid(axis="y", color=palette.LINE, linewidth=0.7)
    axis.spines[["top", "right"]].set_visible(False)
