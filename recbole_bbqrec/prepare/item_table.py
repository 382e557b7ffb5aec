"""The columns of the user's table of items, kept with a data set for conditions on them.

``NAME.item_table.parquet`` has a row for each item of the catalogue that the table describes: its
token in ``item_id``, then the columns of the table as text, since conditions compare texts and
what reads as a number. Bytes and vectors in a parquet file are left out.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable
from pathlib import Path

import duckdb
import pandas as pd

from recbole_bbqrec.prepare.atomic_files import ITEM_TABLE
from recbole_bbqrec.prepare.tables.cells import token_cell
from recbole_bbqrec.prepare.tables.columns import find_column
from recbole_bbqrec.prepare.tables.items import ItemOptions
from recbole_bbqrec.prepare.tables.query import Table

_ITEM = "item_id"
_NO_TEXT = ("blob", "float[", "double[")  # types of pictures and vectors
_FORM = "FORMAT parquet, COMPRESSION zstd, USE_TMP_FILE false"


def write_item_table(source: Path, options: ItemOptions, tokens: Iterable[str], stem: Path) -> Path:
    """Write the columns of the items ``tokens``, each from its first row in ``source``.

    Returns the file.

    Args:
        source: the user's table.
        options: its columns and form.
        tokens: raw tokens of the items to keep.
        stem: folder and name of the data set.

    Raises:
        UserError: the table is unreadable, or its column of items is missing.
    """
    target = Path(f"{stem.absolute()}.{ITEM_TABLE}")
    with Table(source, options.separator, not options.no_header, output=target) as table:
        if table.json_lines:
            table.read_keys()
        item = str(find_column(source, table.header, "item", options.item))
        names = {f"cell{n}": name for n, name in _others(table)}
        cells = {f"cell{n}": f"{_cell(table, n)}::VARCHAR" for n, _ in _others(table)}
        table.load({"token": f"trim({token_cell(table, item)})", **cells})
        table.create("kept", pd.DataFrame({"token": list(tokens)}, dtype=object))
        columns = "".join(f", {cell} AS {_quoted(name)}" for cell, name in names.items())
        table.query(
            f"COPY (SELECT token AS {_ITEM}{columns} FROM cells WHERE row IN (SELECT min(row) FROM "
            "cells WHERE token IN (SELECT token FROM kept) GROUP BY token) ORDER BY row) "
            f"TO {_text(target)} ({_FORM})"
        )
    return target


def extend_item_table(
    earlier: Path, source: Path, options: ItemOptions, tokens: Iterable[str], stem: Path
) -> None:
    """Write the rows of the file ``earlier`` and those of the items ``tokens`` in ``source``.

    ``earlier`` is what :func:`write_item_table` wrote. A column that only one of the two has is
    empty for the items of the other.

    Raises:
        UserError: the table is unreadable, or its column of items is missing.
    """
    target = Path(f"{stem.absolute()}.{ITEM_TABLE}")
    added = write_item_table(source, options, tokens, stem.with_name(f".{stem.name}.added"))
    try:
        with duckdb.connect(":memory:") as database:
            parts = (f"FROM read_parquet({_text(glob.escape(str(p)))})" for p in (earlier, added))
            rows = " UNION ALL BY NAME ".join(parts)
            database.execute(f"COPY ({rows}) TO {_text(target)} ({_FORM})")
    finally:
        added.unlink(missing_ok=True)


# helpers --------------------------------------------------------------------------------------


def _others(table: Table) -> list[tuple[int, str]]:
    """Return number and name of the columns to keep; the token takes the place of ``item_id``."""
    columns = [
        (n, name.strip())
        for n, (name, kind) in enumerate(zip(table.header, table.types))
        if not kind.startswith(_NO_TEXT)
    ]
    if table.json_lines:
        columns = [(n, name) for n, name in columns if name]  # no path leads to an empty key
    return [(n, name or f"column{n + 1}") for n, name in columns if name.lower() != _ITEM]


def _cell(table: Table, number: int) -> str:
    return table.column(table.header[number])[0] if table.json_lines else f"c{number}"


def _text(value: str | Path) -> str:
    """Return a literal of SQL."""
    return "'" + str(value).replace("'", "''") + "'"


def _quoted(name: str) -> str:
    """Return the name of a column in SQL."""
    return '"' + name.replace('"', '""') + '"'
