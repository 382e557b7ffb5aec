"""Rows of RecBole's files with more or fewer fields than the header has.

A tab within an id moves the later fields of its row. If that is the first row, pandas takes the
first column of the file for row names and moves the fields of every other row.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbole_bbqrec.data.loaded_columns import header_columns
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.protocols import RunConfig

_BLOCK = 1 << 24  # bytes read at a time
_SHOWN = 80  # characters of a field in a message


def check_field_counts(config: RunConfig) -> None:
    """Refuse an interaction file with a row whose number of fields is not the header's.

    Raises:
        UserError: names the line and, if it can be told, the column.
    """
    folder, name = Path(config["data_path"]), config["dataset"]
    separator, encoding = config["field_separator"], config["encoding"]
    parts = [f"{part}." for part in config["benchmark_filename"] or ()] or [""]
    for path in (folder / f"{name}.{part}inter" for part in parts):
        header = list((header_columns(path, separator, encoding) or {}).values())
        if not header or len(separator) != 1 or not separator.isascii():
            continue  # RecBole reports what is wrong
        for number, fields in _other_rows(path, separator, len(header), encoding):
            raise _error(path, number, fields, header, separator, encoding)


def _other_rows(
    path: Path, separator: str, expected: int, encoding: str | None
) -> Iterator[tuple[int, list[str]]]:
    """Yield line number, from 1, and fields of each row with another number of fields.

    Blank lines and lines with quotes, which may hold a separator, are passed over.
    """
    mark, line_number, rest = ord(separator), 0, b""
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            whole, newline, rest_of_block = (rest + block).rpartition(b"\n")
            if not newline:
                rest = rest_of_block
                continue
            yield from _in_block(whole + b"\n", mark, line_number, expected, encoding)
            line_number += whole.count(b"\n") + 1
            rest = rest_of_block
    if rest:
        yield from _in_block(rest + b"\n", mark, line_number, expected, encoding)


def _in_block(
    text: bytes, mark: int, before: int, expected: int, encoding: str | None
) -> Iterator[tuple[int, list[str]]]:
    codes = np.frombuffer(text, np.uint8)
    ends = np.flatnonzero(codes == 10)  # [n_lines]
    marks = np.searchsorted(np.flatnonzero(codes == mark), ends)  # [n_lines], up to each end
    counts = np.diff(marks, prepend=0) + 1
    for index in np.flatnonzero(counts != expected).tolist():
        begin = int(ends[index - 1]) + 1 if index else 0
        line = text[begin : int(ends[index])].rstrip(b"\r")
        if line.strip() and b'"' not in line:
            decoded = line.decode(encoding or "utf-8", "replace")
            yield before + index + 1, decoded.split(chr(mark))


def _error(
    path: Path,
    number: int,
    fields: list[str],
    header: list[str],
    separator: str,
    encoding: str | None,
) -> UserError:
    shown = ", ".join(repr(field[:_SHOWN]) for field in fields[: len(header) + 3])
    what = {"\t": "tab", " ": "blank"}.get(separator, repr(separator))
    guess = ""
    if len(fields) == len(header) + 1:
        columns = _split_columns(path, fields, header, separator, encoding)
        if columns:
            guess = f" There seems to be a {what} within the field of {' or '.join(columns)}."
    return UserError(
        f"{path}, line {number} has {len(fields)} fields: {shown}; expected {len(header)}, as in "
        f"its header: {', '.join(header)}.{guess} Correct that line."
    )


def _split_columns(
    path: Path, fields: list[str], header: list[str], separator: str, encoding: str | None
) -> list[str]:
    """Return the columns whose field may have been cut in two: then the others fit their columns.

    Numbers must be numbers; of several such columns those are kept that leave most known tokens.
    """
    possible = {}
    for place, column in enumerate(header):
        joined = [*fields[:place], separator.join(fields[place : place + 2]), *fields[place + 2 :]]
        others = {h: value for h, value in zip(header, joined) if h != column}
        numbers = [value for h, value in others.items() if h.endswith(":float")]
        if pd.to_numeric(pd.Series(numbers, dtype=object), errors="coerce").notna().all():
            possible[column] = others
    if len(possible) < 2:
        return [_name(column) for column in possible]
    options: dict[str, Any] = {"sep": separator, "dtype": str, "encoding": encoding}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pandas warns of the rows in question
            rows = pd.read_csv(path, index_col=False, on_bad_lines="skip", nrows=1 << 20, **options)
    except ValueError:
        return [_name(column) for column in possible]
    tokens = [column for column in header if column.endswith(":token") and column in rows]
    scores = {}
    for column, others in possible.items():
        known = [bool((rows[h] == others[h]).sum() > 1) for h in tokens if h != column]
        scores[column] = (-known.count(False), known.count(True))
    best = max(scores.values())
    return [_name(column) for column in possible if scores[column] == best]


def _name(column: str) -> str:
    return f"`{column.partition(':')[0]}`"
