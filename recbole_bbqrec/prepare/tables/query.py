"""Tables read through DuckDB: CSV and TSV (plain, gzip or zstd), and parquet.

DuckDB gets no network, no extensions and no file but the table; what exceeds its memory goes to a
temporary folder (``TMPDIR``).
"""

from __future__ import annotations

import csv
import errno
import glob
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from recbole_bbqrec.errors import UserError, near_file

SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".inter": "\t", ".item": "\t"}
PARQUET = {".parquet", ".pq"}
JSON_LINES = {".jsonl", ".ndjson", ".json"}
_KEY_LINES = 1000  # lines that say which keys the objects have
_RECORD_SEPARATOR = "\x1e"  # occurs in no text and no JSON, so that a line is one cell
_FETCHED_ROWS = 1 << 14
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
_OTHER_COMPRESSIONS = (".bz2", ".xz")
#: At most four threads: each holds buffers, and parsing in file order uses one.
SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "threads": 4,
    "memory_limit": "700MB",
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}
_LONGEST_LINE = 1 << 24  # bytes; a longer one is a quote that was never closed
_FIELD_COUNT_ERRORS = ("MISSING COLUMNS", "TOO MANY COLUMNS")
# Without sniffing, an unclosed quote is an error; with it, DuckDB reads the quote as text.
_QUOTED = "strict_mode = true, quote = '\"', escape = '\"'"
_NOT_QUOTED = "strict_mode = false, quote = '', escape = ''"


def suffix_of(path: Path) -> str:
    """Return the suffix of the format in lower case, without one of compression."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in (*_COMPRESSIONS, *_OTHER_COMPRESSIONS):
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


class Table:
    """A table file and a database to query it in; a context manager that removes the database.

    Attributes:
        path: the file.
        header: column names, without RecBole's ``:type``.
        types: DuckDB's type of each column, in lower case; ``varchar`` in a text file.
        skipped: after :meth:`load`, lines (from 1) with another number of fields than the header.
            Line breaks within quotes are not counted.

    Args:
        path: the file.
        separator: what divides the columns of a text file, ``\\t`` a tab; None: by its suffix.
        has_header: False names the columns 1, 2, ...
        output: the file that queries may write, besides reading the table.

    Raises:
        UserError: the file is absent, of an unknown format, unreadable or empty.
    """

    def __init__(
        self,
        path: Path,
        separator: str | None = None,
        has_header: bool = True,
        output: Path | None = None,
    ) -> None:
        self.path = path
        self.output = output
        self.has_header = has_header
        separator = "\t" if separator == r"\t" else separator  # as it is typed in a shell
        self.separator = separator or SEPARATORS.get(suffix_of(path), ",")
        self.parquet = suffix_of(path) in PARQUET
        self.json_lines = suffix_of(path) in JSON_LINES
        self.skipped: list[int] = []
        if path.suffix.lower() in _OTHER_COMPRESSIONS:
            raise UserError(
                f"{path} is compressed as {path.suffix}; expected .gz, .zst or none. Decompress it "
                "first."
            )
        of_any_suffix = separator is not None and not (self.parquet or self.json_lines)
        if not of_any_suffix and suffix_of(path) not in {*SEPARATORS, *PARQUET, *JSON_LINES}:
            known = ", ".join([*SEPARATORS, *sorted(PARQUET)])
            raise UserError(
                f"{path} is of no known format; expected one of {known} (a text file may be "
                "compressed: .csv.gz, .csv.zst). Rename or convert it, or say what divides its "
                "columns (--separator)."
            )
        self._folder = tempfile.TemporaryDirectory(prefix="recbole_bbqrec-")
        try:
            with reading(path):
                self._database = self._connect()
                self.header, self.types = self._read_header()
        except BaseException:
            self._folder.cleanup()
            raise

    def __enter__(self) -> Table:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()
        self._folder.cleanup()

    def check_has_rows(self, count: int) -> None:
        """Raise a UserError if the number of rows is 0."""
        if count == 0:
            below = f" below its header ({', '.join(self.header)})" if self.has_header else ""
            raise UserError(f"{self.path} has no rows{below}; expected at least one.")

    def query(self, sql: str, *parameters: object) -> duckdb.DuckDBPyConnection:
        """Run SQL; an error of the database is one of the file.

        Raises:
            UserError: the query failed.
        """
        with reading(self.path):
            return self._database.execute(sql, list(parameters))

    def create(self, name: str, rows: pd.DataFrame) -> None:
        """Make a table from memory."""
        with reading(self.path):
            self._database.register("rows_in_memory", rows)
            self._database.execute(f"CREATE TABLE {name} AS FROM rows_in_memory")
            self._database.unregister("rows_in_memory")

    def load(self, columns: dict[str, str]) -> None:
        """Make the table ``cells`` of all rows that have as many fields as the header.

        Its column ``row`` counts them from 1 in the order of the file; the others are ``columns``,
        name to expression over c0, c1, ... (the columns of the file).

        Raises:
            UserError: the file cannot be read to its end, or has a quote that is not closed.
        """
        chosen = ", ".join(f"{sql} AS {name}" for name, sql in columns.items())
        source = self.source("store_rejects = true")
        self.query(
            f"CREATE TABLE cells AS SELECT row_number() OVER ()::UINTEGER AS row, {chosen} "
            f"FROM {source}"
        )
        if self.parquet:
            return
        rejects = self.query(
            "SELECT DISTINCT line, error_type, error_message FROM reject_errors ORDER BY ALL"
        ).fetchall()
        for line, kind, message in rejects:
            if kind not in _FIELD_COUNT_ERRORS:
                raise _unreadable(self.path, f"line {line}: {message}")
        self.skipped = sorted({line for line, _, _ in rejects})

    def source(self, text_option: str = "ignore_errors = true") -> str:
        """Return the FROM clause whose columns are c0, c1, ...; ``text_option`` is for CSV."""
        names = ", ".join(f"c{number}" for number in range(len(self.header)))
        if self.parquet:
            return f"read_parquet(getvariable('path')) AS file({names})"
        if self.json_lines:
            return self._lines(text_option)
        columns = ", ".join(f"c{number}: 'VARCHAR'" for number in range(len(self.header)))
        header = str(self.has_header).lower()
        options = (_QUOTED, f"header = {header}, columns = {{{columns}}}", text_option)
        return self._read_csv(self.separator, *options)

    def column(self, name: str) -> tuple[str, str]:
        """Return the expression of a column by its name in the header, and its type."""
        if self.json_lines:
            key = name.replace("\\", "\\\\").replace('"', '\\"').replace("'", "''")
            return f"json_extract_string(TRY_CAST(c0 AS JSON), '$.\"{key}\"')", "varchar"
        number = self.header.index(name)
        return f"c{number}", self.types[number]

    def place(self, row: int) -> str:
        """Return where a row of ``cells`` stands, in words.

        Blank lines before it and line breaks within quotes are not counted.
        """
        if self.parquet:
            return f"row {row}"
        line = row if self.json_lines or not self.has_header else row + 1
        for skipped in self.skipped:
            line += skipped <= line
        return f"line {line}"

    def read_keys(self) -> None:
        """Make the keys of the first objects of JSON lines the columns of the table.

        Raises:
            UserError: no line holds an object.
        """
        keys = self.query(
            "SELECT DISTINCT unnest(json_keys(line)) AS name FROM (SELECT TRY_CAST(c0 AS JSON) AS "
            f"line FROM {self._lines()} LIMIT {_KEY_LINES}) WHERE json_type(line) = 'OBJECT' "
            "ORDER BY name"
        ).fetchall()
        if not keys:
            raise UserError(
                f"{self.path}: expected one JSON object a line; there is none at its start."
            )
        self.header = [key for (key,) in keys]
        self.types = ["varchar"] * len(keys)

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of ``cells`` in the order of the file."""
        result = self.query("SELECT * FROM cells ORDER BY row")
        while rows := result.fetchmany(_FETCHED_ROWS):
            yield from rows

    def _connect(self) -> duckdb.DuckDBPyConnection:
        config = {**SETTINGS, "temp_directory": self._folder.name}
        database = duckdb.connect(":memory:", config=config)
        path = str(self.path.absolute())
        database.execute("SET TimeZone = 'UTC'")
        pattern = glob.escape(path)
        database.execute("SET VARIABLE path = ?", [pattern])
        written = pattern if self.output is None else str(self.output.absolute())
        database.execute("SET allowed_paths = [?, ?, ?]", [path, pattern, written])
        database.execute("SET enable_external_access = false")
        database.execute("SET lock_configuration = true")
        return database

    def _read_csv(self, separator: str, *options: str) -> str:
        compression = _COMPRESSIONS.get(self.path.suffix.lower(), "none")
        return (
            f"read_csv(getvariable('path'), auto_detect = false, delim = '{_escaped(separator)}', "
            f"compression = '{compression}', max_line_size = {_LONGEST_LINE}, "
            f"buffer_size = {2 * _LONGEST_LINE}, {', '.join(options)})"
        )

    def _lines(self, *options: str) -> str:
        """Return the FROM clause of the lines of a text file, whose column is c0."""
        columns = "header = false, columns = {c0: 'VARCHAR'}"
        return self._read_csv(_RECORD_SEPARATOR, _NOT_QUOTED, columns, *options)

    def _read_header(self) -> tuple[list[str], list[str]]:
        if self.parquet:
            rows = self._database.execute(
                "DESCRIBE SELECT * FROM read_parquet(getvariable('path'))"
            ).fetchall()
            return [row[0] for row in rows], [row[1].lower() for row in rows]
        first = self._database.execute(f"SELECT c0 FROM {self._lines()} LIMIT 1").fetchone()
        if self.json_lines:
            if first is not None and (first[0] or "").lstrip().startswith("["):
                raise UserError(
                    f"{self.path} holds one JSON list; expected one JSON object a line. Convert "
                    f"it: jq -c '.[]' {self.path.name} > {self.path.stem}.jsonl."
                )
            return ["c0"], ["varchar"]
        separator = self.separator
        if first is None or not first[0]:
            empty = "is empty" if first is None else "begins with an empty line"
            raise UserError(f"{self.path} {empty}; expected a header of column names.")
        header = first[0].split(separator)
        if '"' in first[0]:
            reader = csv.reader([first[0]], delimiter=separator[0], strict=True)
            header = next(reader) if len(separator) == 1 else header
        if not self.has_header:
            names = [str(number) for number in range(1, len(header) + 1)]
            return names, ["varchar"] * len(names)
        typed = suffix_of(self.path) in (".inter", ".item")
        names = [name.partition(":")[0] if typed else name.strip() for name in header]
        return names, ["varchar"] * len(names)


def write_rows(path: Path, rows: pd.DataFrame) -> None:
    """Write a header and rows as text divided by tabs, fractions with six decimals.

    Nothing is quoted: no value may hold a tab or a line end.

    Raises:
        OSError: the disk is full or closed to writing.
    """
    fractions = [f'"{name}"' for name, kind in rows.dtypes.items() if kind == np.float64]
    rounded = ", ".join(f"printf('%.6f', {name}) AS {name}" for name in fractions)
    chosen = f"* REPLACE ({rounded})" if rounded else "*"
    text = "(FORMAT csv, HEADER, DELIMITER '\t', QUOTE '')"
    try:
        with duckdb.connect(":memory:", config=SETTINGS) as database:
            database.register("rows_in_memory", rows)
            database.execute(
                f"COPY (SELECT {chosen} FROM rows_in_memory) TO '{_escaped(str(path))}' {text}"
            )
    except duckdb.IOException as error:  # whose only trace of the cause is the system's message
        causes = (code for code in errno.errorcode if os.strerror(code) in str(error))
        raise OSError(next(causes, errno.EIO), _first_line(error)) from error


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever a reader raises into a UserError that names the file."""
    if not path.is_file():
        raise UserError(f"{path} not found; expected a table.{near_file(path)} Check the path.")
    try:
        yield
    except UserError:
        raise
    except duckdb.OutOfMemoryException as error:
        raise UserError(
            f"{path}: no room is left for sorting ({_first_line(error)}). Free space on the disk "
            f"of {tempfile.gettempdir()}, or set TMPDIR to a folder on a larger one."
        ) from error
    except (OSError, EOFError, ValueError, csv.Error, duckdb.Error) as error:
        raise _unreadable(path, _first_line(error)) from error


def _escaped(text: str) -> str:
    return text.replace("'", "''")


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n\n")[0].replace("\n", " ")


def _unreadable(path: Path, fault: str) -> UserError:
    return UserError(
        f"{path} cannot be read to its end ({fault}); expected a complete table of the kind that "
        "its suffix says, text in UTF-8 with every quote closed. It may be truncated."
    )
