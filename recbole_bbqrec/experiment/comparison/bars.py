"""Charts of bars as PNG or SVG; matplotlib is imported when one is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_bbqrec.palette import BLUE, MUTED, PALE

_DPI = 160
Values = Sequence[Any]  # float, or None if there is no value


@dataclass(frozen=True)
class Bars:
    """One panel of bars; if a value is None, its text in ``reasons`` is drawn instead."""

    title: str
    labels: Sequence[str]
    values: Values
    spread: Values
    reasons: Sequence[str]
    highlight: str


def save_bars(title: str, panels: Sequence[Sequence[Bars]], path: Path, form: str = "png") -> None:
    """Draw a grid of bars: a row per data set, a column per metric; ``form`` is png or svg.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    rows, columns = len(panels), len(panels[0])
    height = 0.3 * len(panels[0][0].labels) + 0.75
    size = (1.2 + 3.0 * columns, 0.3 + height * rows)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey="row")
    for across, bars in zip(axes, panels):
        for axis, panel in zip(across, bars):
            _draw_bars(axis, panel)
        across[0].set_yticks(range(len(bars[0].labels)), bars[0].labels)
        across[0].invert_yaxis()
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=_DPI, format=form)


def _draw_bars(axis: Any, bars: Bars) -> None:
    for place, value in enumerate(bars.values):
        if value is None:
            axis.text(0, place, f" {bars.reasons[place]}", va="center", fontsize=8, color=MUTED)
            continue
        colour = BLUE if bars.labels[place] == bars.highlight else PALE
        spread = bars.spread[place]
        axis.barh(place, value, xerr=spread, height=0.72, color=colour, capsize=2.5)
        axis.annotate(
            f"{value:.4f}", (value + (spread or 0.0), place), xytext=(4, 0),
            textcoords="offset points", va="center", fontsize=7.5,
        )  # fmt: skip
    axis.set_title(bars.title, fontsize=9)
    axis.margins(x=0.28)
    axis.set_xlim(left=0)
    axis.set_ylim(-0.6, len(bars.labels) - 0.4)
    axis.tick_params(labelsize=8)
    axis.tick_params(axis="y", length=0)
    axis.locator_params(axis="x", nbins=4)
    axis.spines[["top", "right"]].set_visible(False)
