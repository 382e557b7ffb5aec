"""Tables of results as Markdown, LaTeX (booktabs) and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Union

from tabulate import tabulate

BEST, SECOND = "best", "second"

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$",
    "<": r"$<$", ">": r"$>$", "−": "$-$", "×": r"$\times$",
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A cell: its text, with a mark (``best``, ``second`` or none), and text after it."""

    text: str
    mark: str = ""
    after: str = ""


Row = Sequence[Union[Entry, str]]


@dataclass(frozen=True)
class Table:
    """A table to print.

    Attributes:
        title: its caption.
        header: column titles; the first column names the rows.
        rows: the body.
        footer: rows below a rule.
        notes: lines below the table.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Row]
    footer: Sequence[Row] = ()
    notes: Sequence[str] = field(default_factory=tuple)


def marks(values: Sequence[float | None], decimals: int) -> list[str]:
    """Mark the largest value ``best`` and the next ``second``, as printed with ``decimals``.

    Values that print alike are marked alike; None is never marked. If several values are best, the
    next is still second.
    """
    printed = [None if value is None else round(value, decimals) for value in values]
    places = sorted({value for value in printed if value is not None}, reverse=True)
    names = dict(zip(places, (BEST, SECOND)))
    return ["" if value is None else names.get(value, "") for value in printed]


def markdown(table: Table) -> str:
    """Write a table in Markdown: best bold, second best underlined, aligned as plain text."""
    wrap = {BEST: "**{}**", SECOND: "<u>{}</u>", "": "{}"}

    def cell(entry: Entry | str) -> str:
        entry = _entry(entry)
        text = wrap[entry.mark].format(entry.text.replace("|", r"\|"))
        return text + entry.after.replace("|", r"\|")

    rows = [[cell(entry) for entry in row] for row in [*table.rows, *table.footer]]
    body = tabulate(rows, list(table.header), tablefmt="pipe", disable_numparse=True)
    return (
        "\n".join([f"### {table.title}", "", body, *(f"\n{note}" for note in table.notes)]) + "\n"
    )


def latex(table: Table) -> str:
    r"""Write a ``table`` environment; needs ``\usepackage{booktabs}``."""
    wrap = {BEST: r"\textbf{%s}", SECOND: r"\underline{%s}", "": "%s"}

    def line(row: Row) -> str:
        cells = map(_entry, row)
        return " & ".join(wrap[c.mark] % escape(c.text) + escape(c.after) for c in cells) + r" \\"

    lines = [
        r"\begin{table}[t]",
        r"\centering",
        rf"\caption{{{escape(table.title)}}}",
        rf"\begin{{tabular}}{{l{'c' * (len(table.header) - 1)}}}",
        r"\toprule",
        line(table.header),
        r"\midrule",
        *map(line, table.rows),
    ]
    if table.footer:
        lines += [r"\midrule", *map(line, table.footer)]
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par\smallskip\footnotesize {escape(note)}" for note in table.notes]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def csv_text(rows: Sequence[dict[str, Any]]) -> str:
    """Write rows of equal keys as CSV with a header; floats in full, None as an empty field."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def escape(text: str) -> str:
    """Escape LaTeX's special characters."""
    return "".join(_LATEX.get(character, character) for character in text)


def _entry(cell: Entry | str) -> Entry:
    return cell if isinstance(cell, Entry) else Entry(cell)
