"""Charts as inline SVG in the page's colours, drawn by matplotlib.

matplotlib needs fixed colours, so it draws in placeholders that are replaced by the page's CSS
variables. Text stays text, in the page's font.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from recbole_bbqrec.errors import UserError

_INK, _MUTED, _LINE = "#010203", "#010204", "#010205"
_SERIES = [f"#01030{number}" for number in range(8)]
_VARIABLES = {
    _INK: "var(--ink)",
    _MUTED: "var(--muted)",
    _LINE: "var(--line)",
    **{colour: f"var(--c{number})" for number, colour in enumerate(_SERIES)},
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
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _MUTED,
    "axes.titlecolor": _INK,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
    "text.color": _INK,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.handlelength": 1.2,
    "legend.columnspacing": 1.2,
    "lines.linewidth": 1.6,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}
SMALL, WIDE = (3.5, 2.3), (4.8, 2.6)  # inches

_MAX_LABELS = 12  # of bars; of more, only every second or third is written

Points = Sequence[Sequence[float]]


def require_plots() -> None:
    """Raise a UserError unless matplotlib and jinja2 are installed."""
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"The report card needs `{error.name}`, which is not installed: "
            "pip install 'recbole_bbqrec[plots]'"
        ) from error


def line_chart(
    series: Mapping[str, Points], *, title: str, x: str = "", percent: bool = False
) -> str:
    """Draw curves through [x, y] points, x whole numbers, with a legend if there are several."""
    everything = [point for points in series.values() for point in points]
    places = sorted({int(point[0]) for point in everything})

    def draw(axes: Any) -> None:
        from matplotlib.ticker import MaxNLocator

        for number, (label, points) in enumerate(series.items()):
            across, up = zip(*points)
            few = "o" if len(points) < 16 else None
            axes.plot(across, up, color=_colour(number), label=label, marker=few, markersize=3)
        if len(places) <= 6:
            axes.set_xticks(places)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        if all(value == 0 for _, value in everything):
            axes.set_ylim(0, 1)
        if len(series) > 1:
            axes.legend()

    return _svg(draw, SMALL, title, x, percent)


def bar_chart(
    labels: Sequence[str],
    series: Mapping[str, Sequence[float]],
    *,
    title: str,
    x: str = "",
    errors: Mapping[str, Sequence[float]] | None = None,
    percent: bool = False,
    top: float | None = None,
) -> str:
    """Draw a group of bars per label, from zero, with error bars if given."""

    def draw(axes: Any) -> None:
        width = 0.8 / max(1, len(series))
        for number, (name, values) in enumerate(series.items()):
            place = [i + (number - (len(series) - 1) / 2) * width for i in range(len(labels))]
            half = None if errors is None else list(errors[name])
            axes.bar(
                place, list(values), width * 0.92, label=name, color=_colour(number),
                yerr=half, error_kw={"ecolor": _INK, "elinewidth": 0.9, "capsize": 2},
            )  # fmt: skip
        step = -(-len(labels) // _MAX_LABELS)
        axes.set_xticks(range(0, len(labels), step), labels[::step])
        axes.set_ylim(0, top)
        if len(series) > 1:
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.24), ncols=4)

    return _svg(draw, SMALL, title, x, percent)


def histogram(counts: Sequence[int], *, title: str, x: str) -> str:
    """Draw counts as bars at 0, 1, ..."""

    def draw(axes: Any) -> None:
        axes.bar(range(len(counts)), counts, 1.0, color=_colour(0))
        axes.set_xlim(-0.5, len(counts) - 0.5)

    return _svg(draw, WIDE, title, x, False)


def band_chart(bands: Sequence[Mapping[str, Sequence[float]]], *, title: str, x: str) -> str:
    """Draw for each entry a line ``mean`` in a band from ``low`` to ``high``, at 0, 1, ..."""

    def draw(axes: Any) -> None:
        for number, band in enumerate(bands):
            across = range(len(band["mean"]))
            colour = _colour(number)
            axes.fill_between(across, band["low"], band["high"], color=colour, alpha=0.15, lw=0)
            axes.plot(across, band["mean"], color=colour, label=f"layer {number + 1}")
            axes.set_xlim(-0.5, len(band["mean"]) - 0.5)
        axes.legend()

    return _svg(draw, WIDE, title, x, False)


def _colour(number: int) -> str:
    return _SERIES[number % len(_SERIES)]


def _svg(draw: Any, size: tuple[float, float], title: str, x: str, percent: bool) -> str:
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        draw(axes)
        axes.set_title(title)
        axes.set_xlabel(x)
        axes.tick_params(length=0)
        if percent:
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        out = io.StringIO()
        figure.savefig(out, format="svg")
    return _for_page(out.getvalue(), title)


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
