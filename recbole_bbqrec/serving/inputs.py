"""Whom to recommend to: users of the data set, users in a file, or histories in a file."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.prepare.tables.cells import time_cell, token_cell
from recbole_bbqrec.prepare.tables.columns import find_column
from recbole_bbqrec.prepare.tables.query import JSON_LINES, Table, suffix_of
from recbole_bbqrec.reading import reading

_FETCHED = 4096  # rows of a query at a time
_NO_TIME = "isfinite(time) IS NOT TRUE"


class Asked(NamedTuple):
    """One user to recommend to; ``history`` None: what the data set knows of the user."""

    user: str
    history: list[str] | None


def users_in(path: Path) -> Iterator[Asked]:
    """Yield the users in a file: a token a line (.txt), or a table with a column of users.

    Raises:
        UserError: the file is unreadable, or has no such column.
    """
    if suffix_of(path) in (".txt", ""):
        for line in _lines(path):
            if line.strip():
                yield Asked(line.strip(), None)
        return
    with Table(path) as table:
        if table.json_lines:
            table.read_keys()
        user = str(find_column(path, table.header, "user", None))
        table.load({"name": token_cell(table, user)})
        for (name,) in _rows(table, "SELECT trim(name) FROM cells WHERE name <> '' ORDER BY row"):
            yield Asked(name, None)


def histories_in(path: Path) -> Iterator[Asked]:
    """Yield the histories in a file, items oldest first.

    Either JSON lines, ``{"user": "a", "history": ["x", "y"]}``, or a table with a row an event and
    columns of the user, the item and optionally the time; without it rows are in time order. Times
    are read as `prepare` reads them: all numbers, or all ISO 8601 dates, with or without zones.

    Raises:
        UserError: the file is unreadable, a line is no such object, a column is missing, or a time
            is not readable.
    """
    if suffix_of(path) in JSON_LINES:
        yield from _json_histories(path)
        return
    with Table(path) as table:
        user, item = (str(find_column(path, table.header, role, None)) for role in ("user", "item"))
        time = find_column(path, table.header, "time", None, required=False)
        cells = {"name": token_cell(table, user), "item": token_cell(table, item)}
        order = "row"
        if time is not None:
            cells["time"], cells["rest"], _ = time_cell(table, time, dates=True)
            cells["written"] = f"CASE WHEN {_NO_TIME} THEN ({table.column(time)[0]})::VARCHAR END"
            order = "time, rest, row"
        table.load(cells)
        if time is not None:
            _check_times(table, time)
        sql = (
            f"SELECT trim(name), list(trim(item) ORDER BY {order}) FROM cells WHERE name <> '' AND "
            "item <> '' GROUP BY trim(name) ORDER BY min(row)"
        )
        for name, items in _rows(table, sql):
            yield Asked(name, items)


def _check_times(table: Table, column: str) -> None:
    """Raise a UserError that names the first event whose time is not readable."""
    row = table.query(
        f"SELECT row, written FROM cells WHERE name <> '' AND item <> '' AND {_NO_TIME} "
        "ORDER BY row LIMIT 1"
    ).fetchone()
    if row is not None:
        found = "is empty" if row[1] is None else f"is {row[1][:60]!r}"
        raise UserError(
            f"{table.path}, {table.place(row[0])}: column {column!r} {found}; expected a time, in "
            "the whole column either numbers or ISO 8601 dates such as 2026-03-01T10:00:00+02:00. "
            "Correct it."
        )


def _rows(table: Table, sql: str) -> Iterator[tuple]:
    result = table.query(sql)
    while rows := result.fetchmany(_FETCHED):
        yield from rows


def _json_histories(path: Path) -> Iterator[Asked]:
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            user, history = record["user"], record["history"]
            if not isinstance(history, list):
                raise TypeError
            items = [str(item) for item in history if isinstance(item, (str, int))]
            if len(items) < len(history):
                raise TypeError
            "".join([str(user), *items]).encode()  # fails for half of a surrogate pair
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path}, line {number} is {line.strip()[:60]!r}; expected an object such as "
                '{"user": "a", "history": ["x", "y"]}, items oldest first. Correct the line.'
            ) from error
        yield Asked(str(user), items)


def _lines(path: Path) -> Iterator[str]:
    opened: Any = gzip.open if path.suffix.lower() == ".gz" else open
    with (
        reading(path, "lines of text in UTF-8, plain or .gz", "Check the path."),
        opened(path, "rt", encoding="utf-8-sig") as file,
    ):
        yield from file


def in_parts(asked: Iterator[Asked], size: int) -> Iterator[list[Asked]]:
    """Yield lists of ``size`` users; the last may be shorter."""
    while part := list(islice(asked, size)):
        yield part
