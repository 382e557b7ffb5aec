"""The files of a comparison or experiment: tables, CSV rows and charts in one folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Callable

from recbole_bbqrec.atomic import atomic_path, write_text
from recbole_bbqrec.experiment.comparison.tables import Table, csv_text, latex, markdown


def write_results(
    output: Path,
    tables: Sequence[Table],
    rows: Mapping[str, Sequence[dict[str, Any]]],
    charts: Mapping[str, Callable[[Path], None]],
) -> tuple[str, list[str]]:
    """Write table.md, table.tex, the CSV files and the charts into ``output``.

    Args:
        output: the folder; it is made if absent.
        tables: for table.md and table.tex.
        rows: CSV file name to its rows.
        charts: file name to what draws it. Charts are left out if matplotlib is not installed.

    Returns:
        The tables in Markdown, and the names of the files written.
    """
    text = "\n".join(map(markdown, tables))
    contents = {"table.md": text, "table.tex": "\n".join(map(latex, tables))}
    contents.update((name, csv_text(lines)) for name, lines in rows.items())
    for name, content in contents.items():
        write_text(output / name, content)
    drawn = []
    for name, draw in charts.items():
        try:
            with atomic_path(output / name) as temporary:
                draw(temporary)
        except ImportError:
            break
        drawn.append(name)
    return text, [*contents, *drawn]
