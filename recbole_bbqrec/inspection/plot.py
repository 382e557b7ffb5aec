"""Draw an inspection as one picture (needs matplotlib, the extra ``plots``)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from recbole_bbqrec.atomic import atomic_path
from recbole_bbqrec.inspection.measures import Inspection
from recbole_bbqrec.inspection.text import clip, doubling_bins, label, share, summary
from recbole_bbqrec.palette import BLUE as _BLUE
from recbole_bbqrec.palette import MUTED as _GREY
from recbole_bbqrec.palette import VERMILION as _ORANGE

_ROW_INCHES = 0.22  # height of a line of text at 9 points
_MAX_MODALITIES = 4  # shown side by side; more would leave no room for titles


def save_picture(found: Inspection, path: str | os.PathLike[str], dpi: int = 110) -> None:
    """Draw ``found`` and write it as a PNG or SVG file, by the name of the file.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # A dollar sign in a title is no formula.
    style: Any = {"font.family": "DejaVu Sans", "font.size": 9, "text.parse_math": False,
             "axes.spines.top": False, "axes.spines.right": False,
             "svg.hashsalt": "inspect"}  # fmt: skip
    with matplotlib.rc_context(style):
        table = _table_rows(found)
        table_inches = _ROW_INCHES * (len(table) + 1)
        height = 4.1 + (table_inches if table else 0)
        figure = Figure(figsize=(13, height), dpi=dpi)
        FigureCanvasAgg(figure)
        figure.text(0.02, 1 - 0.3 / height, found.name, size=15, weight="bold", va="center")
        figure.text(0.02, 1 - 0.6 / height, _headline(found), color=_GREY, va="center")
        grid = figure.add_gridspec(
            1, 3, left=0.045, right=0.975, wspace=0.2, width_ratios=(1, 1, 1.15),
            top=1 - 1.15 / height, bottom=1 - 3.35 / height,
        )  # fmt: skip
        _bars(figure.add_subplot(grid[0]), found.lengths, "Users", _BLUE)
        _bars(figure.add_subplot(grid[1]), found.counts, "Items", _ORANGE)
        _coverage(figure.add_subplot(grid[2]), found)
        if table:
            top, step = 1 - 4.25 / height, _ROW_INCHES / height
            for number, cells in enumerate(table):
                for left, text, options in cells:
                    figure.text(left, top - number * step, text, va="center", **options)
        form = Path(path).suffix[1:].lower()
        undated = {"Date": None} if form == "svg" else None  # the same data give the same bytes
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format=form, metadata=undated)


def _headline(found: Inspection) -> str:
    users, items = len(found.lengths), len(found.counts)
    return (
        f"{users:,} users, {items:,} items, {found.interactions:,} interactions "
        f"({found.repeats:,} of them repeated), density {found.interactions / users / items:.3%}"
    )


def _bars(axes: Any, values: np.ndarray, of: str, colour: str) -> None:
    """Draw bars over bins that double, on a log axis of counts."""
    edges, counts = doubling_bins(values)
    names = [str(a) if b == a + 1 else f"{a:,}–{b - 1:,}" for a, b in zip(edges, edges[1:])]
    axes.bar(range(len(counts)), counts, width=0.85, color=colour)
    axes.set_yscale("log")
    axes.set_ylim(0.7, counts.max() * 3)
    axes.yaxis.set_major_formatter(lambda value, _: _short(round(value)) if value >= 1 else "")
    axes.minorticks_off()
    for place, count in enumerate(counts.tolist()):
        if count:
            axes.annotate(_short(count), (place, count), (0, 2), textcoords="offset points",
                          ha="center", size=7.5, color=_GREY)  # fmt: skip
    turn = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if len(names) > 6 else {}
    axes.set_xticks(range(len(names)), names, size=8, **turn)
    axes.set_title(f"{of} by their number of interactions", loc="left", pad=18,
                   weight="bold", size=10)  # fmt: skip
    axes.text(0, 1.02, summary(values), transform=axes.transAxes, size=7.5, color=_GREY)


def _short(count: int) -> str:
    if count < 10_000:
        return f"{count:,}"
    return f"{count / 1e3:.0f}k" if count < 1e6 else f"{count / 1e6:.3g}M"


def _coverage(axes: Any, found: Inspection) -> None:
    """Draw two bars per modality: share of items, share of interactions."""
    axes.set_title("Features: share of items and of interactions", loc="left", pad=18,
                   weight="bold", size=10)  # fmt: skip
    if not found.modalities:
        axes.text(0.5, 0.5, "no features", transform=axes.transAxes, ha="center", color=_GREY)
        axes.set_axis_off()
        return
    items = len(found.counts)
    for place, m in enumerate(found.modalities):
        axes.barh(place - 0.05, m.items / items, height=0.22, color=_ORANGE)
        axes.barh(place + 0.19, m.interactions, height=0.22, color=_BLUE)
        axes.text(
            0, place - 0.24, clip(f"{m.name}, {m.dim}-d: {m.encoder}", 66), va="bottom", size=8
        )
        for offset, value, text in (
            (-0.05, m.items / items, f"{m.items:,} items, {share(m.items, items)}"),
            (0.19, m.interactions, f"{m.interactions:.1%} of interactions"),
        ):
            inside = value > 0.5
            axes.text(value - 0.01 if inside else value + 0.01, place + offset, text, size=7.5,
                      va="center", ha="right" if inside else "left",
                      color="white" if inside else _GREY)  # fmt: skip
    axes.set_xlim(0, 1)
    axes.set_ylim(max(len(found.modalities), 2) - 0.6, -0.6)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)


def _table_rows(found: Inspection) -> list[list[tuple[float, str, dict[str, Any]]]]:
    """Return lines of text cells (left edge, text, options): items, and neighbours by modality."""
    shown = [m.name for m in found.modalities][:_MAX_MODALITIES]
    if not shown or not found.neighbours:
        return []
    width = 0.965 / len(shown)
    letters = int(165 / len(shown)) - 9
    lines: list[list[tuple[float, str, dict[str, Any]]]] = []
    for query, by_modality in found.neighbours.items():
        title = f"Nearest to  {drawable(label(found, query, 130))}"
        lines.append([(0.02, title, {"weight": "bold"})])
        lines.append([(0.02 + k * width, f"by {n}", {"color": _GREY}) for k, n in enumerate(shown)])
        for row in range(max(len(by_modality[n].items) for n in shown)):
            cells: list[tuple[float, str, dict[str, Any]]] = []
            for k, name in enumerate(shown):
                there = by_modality[name]
                if row < len(there.items):
                    left = 0.02 + k * width
                    item = drawable(label(found, there.items[row], letters))
                    cells.append((left, f"{there.cosine[row]:.2f}", {"color": _BLUE}))
                    cells.append((left + 0.03, item, {}))
                elif row == 0 and not there.present:
                    cells.append((0.02 + k * width, "the item has no such feature", {}))
            lines.append(cells)
        lines.append([])
    return lines


def drawable(text: str) -> str:
    """Replace characters that the font lacks and would draw as boxes."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    known = get_font(findfont(FontProperties(family="DejaVu Sans"))).get_charmap()
    return "".join(c if ord(c) in known else "?" for c in text)
