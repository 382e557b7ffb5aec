"""The report as one self-contained HTML page.

All values come from the report's dictionary. Jinja escapes them, because titles and tokens are
foreign data. The page has no script, and its content policy forbids one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from recbole_bbqrec.experiment.report_card import charts
from recbole_bbqrec.experiment.store.progress import duration

#: Titles of terms whose names are not clear by themselves.
_TITLES = {
    "estimator": "MIM estimator (its own loss)",
    "mim": "mutual information (MIM)",
    "dead": "dead codes",
    "restarted": "dead codes restarted",
    "total": "total loss",
    "utilisation": "utilisation, mean of the signals",
    "perplexity": "perplexity, mean of the signals",
}

#: Metrics to chart, in order of preference: the first two that the run has.
_CHARTED = ("recall", "ndcg", "hit", "mrr")


def render(report: Mapping[str, Any]) -> str:
    """Render the page of a report, as ``collect`` returned it or ``report.json`` holds it."""
    page = _template("report.html.jinja", escape=True)
    return page.render(report=report, charts=_charts(report), charted=_charted(report))


def model_card(report: Mapping[str, Any]) -> str:
    """Render the model card of the run, one page of Markdown."""
    card = _template("model_card.md.jinja", escape=False)
    return card.render(report=report, charted=_charted(report))


def _template(name: str, *, escape: bool) -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(__package__, "page"),
        autoescape=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        share=share, number=number, seconds=seconds, mib=mib, span=span, count=count, cell=cell
    )
    return environment.get_template(name)


def pictures(report: Mapping[str, Any]) -> dict[str, charts.Chart]:
    """Return the charts of the page by a name for a file, such as ``codes-utilisation``."""
    found: dict[str, charts.Chart] = {}
    phases = [phase["phase"] for phase in report["curves"] or ()]
    for section, drawn in _charts(report).items():
        groups = zip(phases, drawn) if section == "curves" else [(section, drawn)]
        for name, group in groups:
            for chart in [group] if isinstance(group, charts.Chart) else group:
                words = re.sub(r"[^a-z0-9]+", "-", chart.title.lower()).strip("-")
                found[f"{name.replace('_', '-')}-{words}"] = chart
    return found


# numbers as text ------------------------------------------------------------------------------


def share(value: float | None, digits: int = 1) -> str:
    """Write 0.1234 as 12.3 %."""
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def number(value: float | None, digits: int = 4) -> str:
    """Write a metric."""
    return "–" if value is None else f"{value:.{digits}f}"


def count(value: int) -> str:
    """Write 1234 as 1,234."""
    return f"{value:,}"


def seconds(value: float) -> str:
    """Write 5.0 s, 3 min 49 s or 2 h 2 min."""
    return duration(value, decimals=1)


def mib(value: float | None) -> str:
    """Write mebibytes."""
    return "–" if value is None else f"{value:,.0f} MiB"


def span(entry: Mapping[str, Any]) -> str:
    """Write the range of a bucket, 5 or 5–9, or its label."""
    if "label" in entry:
        return str(entry["label"])
    low, high = entry["from"], entry["to"]
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"


def cell(text: str) -> str:
    """Write a text into a cell of a Markdown table, as plain text."""
    plain = " ".join(str(text).split())
    return plain.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


# charts ---------------------------------------------------------------------------------------


def _charted(report: Mapping[str, Any]) -> list[str]:
    """Return the metrics that breakdowns show, at the largest cut-off."""
    k = report["run"]["k"]
    names = report["test"]["recomputed"]
    return [f"{kind}@{k}" for kind in _CHARTED if f"{kind}@{k}" in names][:2]


def _charts(report: Mapping[str, Any]) -> dict[str, Any]:
    """Draw the charts of the sections that the report has, as SVG by section."""
    drawn: dict[str, Any] = {
        "curves": [_curves(phase) for phase in report["curves"] or ()],
        "targets": _breakdown(report, "targets", "test targets"),
        "history_length": _breakdown(report, "history_length", "history length, items"),
        "popularity": _breakdown(report, "popularity", "training events of the next item"),
        "shares": _shares(report),
    }
    if report["codes"] is not None:
        drawn["codes"] = _code_charts(report["codes"])
        drawn["code_use"] = [_code_use(report["codes"])]
    if report["map"] is not None:
        drawn["map"] = [
            charts.scatter(
                report["map"]["places"], groups, title=f"first code of {signal}",
                names=[f"code {place + 1}" for place in range(max(groups) + 1)],
            )
            for signal, groups in report["map"]["first_codes"].items()
        ]  # fmt: skip
    if report["beam"] is not None:
        drawn["beam"] = [_beam(report)]
    if report["similarity"] is not None:
        similarity = report["similarity"]
        drawn["similarity"] = [
            charts.histogram(
                similarity["counts"], title="item pairs by bucket", x="similarity bucket"
            ),
            charts.band_chart(similarity["gates"], title="gate by bucket", x="similarity bucket"),
        ]
    return drawn


def _curves(phase: Mapping[str, Any]) -> list[charts.Chart]:
    return [
        charts.line_chart(
            panel["series"], title=_TITLES.get(panel["name"], panel["name"]), x="epoch"
        )
        for panel in phase["panels"]
    ]


def _breakdown(report: Mapping[str, Any], section: str, x: str) -> list[charts.Chart]:
    entries = report[section]
    labels = [span(entry) for entry in entries]
    drawn = []
    for name in _charted(report):
        values = [entry["metrics"].get(name, 0.0) for entry in entries]
        half = [entry["half_width_95"].get(name, 0.0) for entry in entries]
        drawn.append(charts.bar_chart(labels, {name: values}, errors={name: half}, title=name, x=x))
    return drawn


def _shares(report: Mapping[str, Any]) -> charts.Chart:
    entries = report["popularity"]
    series = {
        "catalogue": [entry["share_of_items"] for entry in entries],
        "next items": [entry["share_of_targets"] for entry in entries],
        "recommended": [entry["share_of_recommendations"] for entry in entries],
    }
    labels = [span(entry) for entry in entries]
    return charts.bar_chart(labels, series, title="shares", x="training events", percent=True)


def _code_charts(codes: Mapping[str, Any]) -> list[charts.Chart]:
    def values(signal: str, key: str) -> list[float]:
        return [entry[key] for entry in codes["use"] if entry["signal"] == signal]

    labels = [str(place).split()[-1] for place in codes["levels"]]
    x = str(codes["levels"][0]).split()[0]
    utilisation, perplexity = (
        {signal: values(signal, key) for signal in codes["signals"]}
        for key in ("utilisation", "perplexity")
    )
    return [
        charts.bar_chart(labels, utilisation, title="utilisation", x=x, percent=True, top=1.02),
        charts.bar_chart(labels, perplexity, title="perplexity", x=x),
    ]


def _code_use(codes: Mapping[str, Any]) -> charts.Chart:
    rows = [entry["shares"] for entry in codes["use"]]
    labels = [f"{entry['level']}, {entry['signal']}" for entry in codes["use"]]
    bins = "" if len(rows[0]) == codes["codebook_size"] else f" in {len(rows[0])} bins"
    return charts.heat_map(
        labels, rows, title="share of the items at each code", x=f"codes{bins}, most used first"
    )


def _beam(report: Mapping[str, Any]) -> charts.Chart:
    found = report["beam"]
    names = [name for name in _charted(report) if name in found["metrics"]["exact"]]
    series = {
        {"as evaluated": "beam"}.get(key, key): [found["metrics"][key][name] for name in names]
        for key in ("as evaluated", "exact")
    }
    return charts.bar_chart(names, series, title=f"beam of {found['num_beams']} against exact")
