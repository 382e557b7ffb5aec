"""Charts drawn by matplotlib: inline SVG in the page's colours, or pictures of their own.

matplotlib needs fixed colours, so for the page it draws in placeholders that are replaced by the
page's CSS variables. Text stays text, in the page's font.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Callable, NamedTuple

from recbole_bbqrec import palette
from recbole_bbqrec.atomic import atomic_path
from recbole_bbqrec.errors import UserError, pip_install


class Colours(NamedTuple):
    """Colours of a chart."""

    ink: str
    muted: str
    line: str
    series: Sequence[str]


_FIXED = Colours(palette.INK, palette.MUTED, palette.LINE, palette.SERIES)
_PLACEHOLDERS = Colours("#010203", "#010204", "#010205", [f"#01030{n}" for n in range(8)])
_VARIABLES = {
    _PLACEHOLDERS.ink: "var(--ink)",
    _PLACEHOLDERS.muted: "var(--muted)",
    _PLACEHOLDERS.line: "var(--line)",
    **{colour: f"var(--c{number})" for number, colour in enumerate(_PLACEHOLDERS.series)},
}
_STYLE: dict[Any, Any] = {
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.handlelength": 1.2,
    "legend.columnspacing": 1.2,
    "lines.linewidth": 1.6,
    "axes.facecolor": "none",
}
SMALL, WIDE, SQUARE = (3.5, 2.3), (4.8, 2.6), (3.5, 3.6)  # inches
_DPI = 200  # of a PNG

_SHAPES = "osD^vP"  # groups of a scatter differ in shape, too
_LONGEST_LABEL = 8  # characters of a label that stands upright below its bars
_MAX_LABELS = 12  # of bars; of more, only every second or third is written

Points = Sequence[Sequence[float]]


class Chart(NamedTuple):
    """A chart to draw: what fills its axes, its size in inches, and the texts around them."""

    draw: Callable[[Any, Colours], None]
    size: tuple[float, float]
    title: str
    x: str = ""
    percent: bool = False

    def svg(self) -> str:
        """Return an <svg> element for the page, in the page's colours."""
        out = io.StringIO()
        _save(self, out, "svg", _PLACEHOLDERS, "none")
        return _for_page(out.getvalue(), self.title)

    def save(self, path: Path) -> None:
        """Write a picture of its own, SVG or PNG by the name of the file."""
        with atomic_path(path) as temporary:
            _save(self, temporary, path.suffix[1:], _FIXED, "white")


def require_plots() -> None:
    """Raise a UserError unless matplotlib and jinja2 are installed."""
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"The report card needs `{error.name}`, which is not installed: {pip_install('plots')}"
        ) from error


def line_chart(
    series: Mapping[str, Points], *, title: str, x: str = "", percent: bool = False
) -> Chart:
    """Draw curves through [x, y] points, x whole numbers, with a legend if there are several."""
    everything = [point for points in series.values() for point in points]
    places = sorted({int(point[0]) for point in everything})

    def draw(axes: Any, colours: Colours) -> None:
        from matplotlib.ticker import MaxNLocator

        for number, (label, points) in enumerate(series.items()):
            across, up = zip(*points)
            few = "o" if len(points) < 16 else None
            axes.plot(
                across, up, color=_series(colours, number), label=label, marker=few, markersize=3
            )
        if len(places) <= 6:
            axes.set_xticks(places)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        if all(value == 0 for _, value in everything):
            axes.set_ylim(0, 1)
        if len(series) > 1:
            axes.legend()

    return Chart(draw, SMALL, title, x, percent)


def bar_chart(
    labels: Sequence[str],
    series: Mapping[str, Sequence[float]],
    *,
    title: str,
    x: str = "",
    errors: Mapping[str, Sequence[float]] | None = None,
    percent: bool = False,
    top: float | None = None,
) -> Chart:
    """Draw a group of bars per label, from zero, with error bars if given."""

    def draw(axes: Any, colours: Colours) -> None:
        width = 0.8 / max(1, len(series))
        for number, (name, values) in enumerate(series.items()):
            place = [i + (number - (len(series) - 1) / 2) * width for i in range(len(labels))]
            half = None if errors is None else list(errors[name])
            axes.bar(
                place, list(values), width * 0.92, label=name, color=_series(colours, number),
                yerr=half, error_kw={"ecolor": colours.ink, "elinewidth": 0.9, "capsize": 2},
            )  # fmt: skip
        step = -(-len(labels) // _MAX_LABELS)
        long = max(map(len, labels), default=0) > _LONGEST_LABEL
        turned = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if long else {}
        axes.set_xticks(range(0, len(labels), step), labels[::step], **turned)
        axes.set_ylim(0, top)
        if len(series) > 1:
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.24), ncols=4)

    return Chart(draw, SMALL, title, x, percent)


def histogram(counts: Sequence[int], *, title: str, x: str) -> Chart:
    """Draw counts as bars at 0, 1, ..."""

    def draw(axes: Any, colours: Colours) -> None:
        axes.bar(range(len(counts)), counts, 1.0, color=_series(colours, 0))
        axes.set_xlim(-0.5, len(counts) - 0.5)

    return Chart(draw, WIDE, title, x)


def band_chart(bands: Sequence[Mapping[str, Sequence[float]]], *, title: str, x: str) -> Chart:
    """Draw for each entry a line ``mean`` in a band from ``low`` to ``high``, at 0, 1, ..."""

    def draw(axes: Any, colours: Colours) -> None:
        for number, band in enumerate(bands):
            across = range(len(band["mean"]))
            colour = _series(colours, number)
            axes.fill_between(across, band["low"], band["high"], color=colour, alpha=0.15, lw=0)
            axes.plot(across, band["mean"], color=colour, label=f"layer {number + 1}")
            axes.set_xlim(-0.5, len(band["mean"]) - 0.5)
        axes.legend()

    return Chart(draw, WIDE, title, x)


def heat_map(
    labels: Sequence[str], rows: Sequence[Sequence[float]], *, title: str, x: str
) -> Chart:
    """Draw a row of cells for each label, the darker the larger; values are of one unit."""
    largest = max((value for row in rows for value in row), default=0.0) or 1.0

    def draw(axes: Any, colours: Colours) -> None:
        from matplotlib.colors import to_rgba

        for place, row in enumerate(rows):
            # A square root: the eye tells shades apart by ratio rather than by difference.
            shades = [round((value / largest) ** 0.5, 2) for value in row]
            cells = [(column - 0.5, 1) for column in range(len(row))]
            fills = [to_rgba(_series(colours, 0), shade) for shade in shades]
            axes.broken_barh(cells, (place - 0.43, 0.86), facecolors=fills, linewidth=0)
        axes.set_yticks(range(len(labels)), labels)
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.set_xlim(-0.5, max(map(len, rows)) - 0.5)
        axes.grid(False)
        axes.spines[["left", "bottom"]].set_visible(False)

    return Chart(draw, (4.8, 0.9 + 0.26 * len(labels)), title, x)


def scatter(places: Points, groups: Sequence[int], *, title: str, names: Sequence[str]) -> Chart:
    """Draw points; group k has name, colour and shape k, and group -1 is grey."""

    def draw(axes: Any, colours: Colours) -> None:
        for group in [-1, *range(len(names))]:
            chosen = [place for place, of in zip(places, groups) if of == group]
            if not chosen:
                continue
            across, up = zip(*chosen)
            grey = group < 0
            axes.plot(
                across, up, linestyle="none", markeredgewidth=0,
                marker="." if grey else _SHAPES[group % len(_SHAPES)],
                markersize=3 if grey else 3.5, alpha=0.35 if grey else 0.85,
                color=colours.muted if grey else _series(colours, group),
                label="others" if grey else names[group],
            )  # fmt: skip
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0), ncols=4)

    return Chart(draw, SQUARE, title)


def _series(colours: Colours, number: int) -> str:
    return colours.series[number % len(colours.series)]


def _save(chart: Chart, out: Any, form: str, colours: Colours, paper: str) -> None:
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    style: dict[Any, Any] = {
        **_STYLE,
        **dict.fromkeys(("axes.edgecolor", "grid.color"), colours.line),
        **dict.fromkeys(("axes.labelcolor", "xtick.color", "ytick.color"), colours.muted),
        **dict.fromkeys(("axes.titlecolor", "text.color"), colours.ink),
        "figure.facecolor": paper,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=chart.size, layout="constrained")
        axes = figure.add_subplot()
        chart.draw(axes, colours)
        axes.set_title(chart.title)
        axes.set_xlabel(chart.x)
        axes.tick_params(length=0)
        if chart.percent:
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        undated = {"Date": None} if form == "svg" else None  # the same chart has the same bytes
        figure.savefig(out, format=form, dpi=_DPI, metadata=undated)


def _for_page(text: str, title: str) -> str:
    """Return the <svg> element, with the page's colours and without metadata and unused ids."""
    from markupsafe import escape

    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text)
    # Drop ids that nothing refers to: they would repeat from chart to chart.
    used = set(re.findall(r"url\(#([^)]+)\)", text)) | set(re.findall(r'href="#([^"]+)"', text))
    text = re.sub(r'\sid="([^"]*)"', lambda match: match[0] if match[1] in used else "", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    label = escape(title)
    return text.replace("<svg", f'<svg role="img" aria-label="{label}" class="chart"', 1)
