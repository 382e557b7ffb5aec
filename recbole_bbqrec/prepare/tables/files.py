"""Tables of any size, in chunks: CSV and TSV through the csv module, parquet through pyarrow.

CSV and TSV files may be compressed (``.gz``, ``.bz2``, ``.xz``) and must have a header. pandas'
reader is not used for them: it accepts rows of too many fields where a chunk begins.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import lzma
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.prepare.tables.numbers import NumberReader, Numbers, parquet_numbers

CHUNK_ROWS = 1 << 14  # larger is slower: the rows no longer stay in the processor's cache
_LONGEST_CELL = 1 << 24  # characters; what is longer is a quote that was never closed
SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".inter": "\t", ".item": "\t"}
PARQUET = {".parquet", ".pq"}
_OPENERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


class Tokens(NamedTuple):
    """A token column: ``codes`` int32 [rows] into ``names``, -1 where missing.

    Without codes there is one name a row, empty where missing.
    """

    codes: np.ndarray | None
    names: Sequence[str]


class Chunk(NamedTuple):
    """Some rows of a table.

    ``lines`` int64 [rows] are their places in the file, as a reader would look them up: lines of
    a text file (the header is line 1), rows of a parquet file (from 1). ``skipped`` are the
    lines that have another number of fields than the header; blank lines are in neither.
    """

    lines: np.ndarray
    skipped: list[int]
    tokens: dict[str, Tokens]
    numbers: dict[str, Numbers]


def suffix_of(path: Path) -> str:
    """The suffix that says the format, lower case, below one of compression."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _OPENERS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def read_header(path: Path) -> list[str]:
    """Column names of a table, without RecBole's ``:type``.

    Raises:
        UserError: the file is absent, of an unknown format, unreadable or empty.
    """
    if suffix_of(path) in PARQUET:
        with reading(path):
            return list(_parquet(path).schema_arrow.names)
    with reading(path), open_text(path) as file:
        reader = csv.reader(file, delimiter=_separator(path), strict=True)
        with _long_cells():
            header = next(reader, [])
    if not header:
        raise UserError(f"{path} begins with an empty line; expected a header of column names.")
    typed = suffix_of(path) in (".inter", ".item")
    return [name.partition(":")[0] if typed else name.strip() for name in header]


def read_chunks(
    path: Path,
    header: Sequence[str],
    tokens: Mapping[str, str],
    numbers: Mapping[str, str],
    dates: Sequence[str] = (),
    rows: int = CHUNK_ROWS,
) -> Iterator[Chunk]:
    """Read some columns of a table.

    Args:
        path: the table.
        header: its column names, of :func:`read_header`.
        tokens: role to column name, for columns of tokens.
        numbers: role to column name, for columns of numbers.
        dates: the roles of ``numbers`` that may hold ISO 8601 dates instead; a column holds
            either, and its first values decide.
        rows: of one chunk.

    Raises:
        UserError: the file cannot be read to its end, a quote in it is not closed, or in a
            parquet file a token column is neither text nor whole numbers, or a time column a
            time of day or a duration.
    """
    readers = {role: NumberReader(role in dates) for role in numbers}
    columns = {**tokens, **numbers}
    raw = _parquet_chunks if suffix_of(path) in PARQUET else _text_chunks
    with reading(path):
        for lines, skipped, table in raw(path, header, columns, set(tokens), rows):
            yield Chunk(
                lines,
                skipped,
                {role: table[role] for role in tokens},
                {role: readers[role].read(table[role]) for role in numbers},
            )


def text_chunks(
    path: Path, header: Sequence[str], columns: Sequence[str], rows: int = CHUNK_ROWS
) -> Iterator[tuple[list[int], np.ndarray, list[tuple[Any, ...]]]]:
    """Read columns of any content: skipped lines, lines int64 [rows], and a tuple a row.

    Cells of a text file are strings, None where empty; those of a parquet file what they are.
    """
    with reading(path):
        if suffix_of(path) in PARQUET:
            begin = 1
            for batch in _parquet(path).iter_batches(rows, columns=list(columns)):
                cells = [batch.column(name).to_pylist() for name in columns]
                yield [], np.arange(begin, begin + batch.num_rows), list(zip(*cells))
                begin += batch.num_rows
            return
        place = [header.index(column) for column in columns]
        for lines, skipped, fields in _text_rows(path, len(header), rows):
            yield skipped, lines, list(zip(*(fields[number] for number in place)))


def _separator(path: Path) -> str:
    suffix = suffix_of(path)
    if suffix not in SEPARATORS:
        known = ", ".join([*SEPARATORS, *sorted(PARQUET)])
        raise UserError(
            f"{path} is of no known format; expected one of {known} (a text file may be "
            "compressed: .csv.gz). Rename or convert it."
        )
    return SEPARATORS[suffix]


def _text_chunks(
    path: Path, header: Sequence[str], columns: Mapping[str, str], coded: set[str], rows: int
) -> Iterator[tuple[np.ndarray, list[int], dict[str, Any]]]:
    """Lines, skipped lines, and per role Tokens (for those in ``coded``) or an array of text."""
    place = {role: header.index(column) for role, column in columns.items()}
    for lines, skipped, fields in _text_rows(path, len(header), rows):
        yield (
            lines,
            skipped,
            {
                role: Tokens(None, fields[number])
                if role in coded
                else np.array(fields[number], dtype=object)
                for role, number in place.items()
            },
        )


def _text_rows(
    path: Path, width: int, count: int
) -> Iterator[tuple[np.ndarray, list[int], Sequence[Sequence[str]]]]:
    """Lines, skipped lines and the columns of ``count`` rows at a time."""
    with open_text(path) as file:
        reader = csv.reader(file, delimiter=_separator(path), strict=True)
        with _long_cells():
            next(reader, None)
        begin = reader.line_num + 1
        while rows := _next_rows(reader, count):
            lines = np.arange(begin, begin + len(rows))
            # With line breaks in quoted fields, a row's line is known by its chunk only.
            begin = reader.line_num + 1
            widths = np.fromiter(map(len, rows), np.int64, len(rows))
            skipped = lines[(widths != width) & (widths > 0)].tolist()
            if (widths != width).any():
                kept = np.flatnonzero(widths == width)
                rows, lines = [rows[row] for row in kept], lines[kept]
            yield lines, skipped, list(zip(*rows)) if rows else [()] * width


def _next_rows(reader: Iterator[list[str]], count: int) -> list[list[str]]:
    with _long_cells():
        return list(islice(reader, count))


@contextmanager
def _long_cells() -> Iterator[None]:
    """Let the csv module read cells of more than 131,072 characters.

    Its limit is one for the process, so it is put back before the rows are handed on.
    """
    usual = csv.field_size_limit(_LONGEST_CELL)
    try:
        yield
    finally:
        csv.field_size_limit(usual)


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """A text file, decompressed where its suffix says so, without a byte order mark."""
    opener = _OPENERS.get(path.suffix.lower(), open)
    with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
        yield file


def _parquet(path: Path) -> Any:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(
            f"{path}: parquet needs pyarrow, which is not installed. Run pip install "
            "recbole_bbqrec[parquet], or convert the file to CSV."
        ) from error
    return parquet.ParquetFile(path)


def _parquet_chunks(
    path: Path, header: Sequence[str], columns: Mapping[str, str], coded: set[str], rows: int
) -> Iterator[tuple[np.ndarray, list[int], dict[str, Any]]]:
    line = 1
    for batch in _parquet(path).iter_batches(rows, columns=list(columns.values())):
        table: dict[str, Any] = {}
        for role, column in columns.items():
            read = _parquet_tokens if role in coded else parquet_numbers
            table[role] = read(path, column, batch.column(column))
        yield np.arange(line, line + batch.num_rows), [], table
        line += batch.num_rows


def _parquet_tokens(path: Path, column: str, cells: Any) -> Tokens:
    import pyarrow as pa

    kind = cells.type.value_type if pa.types.is_dictionary(cells.type) else cells.type
    if pa.types.is_floating(kind):
        # Whole numbers beside missing ones are floats when pandas writes them.
        cells = cells.cast(pa.int64()) if _all_whole(cells) else cells
        kind = cells.type
    if not (
        pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)
    ):
        raise UserError(
            f"{path}: column {column!r} is {kind}; expected text or whole numbers. Convert it."
        )
    coded = cells.cast(pa.string()).dictionary_encode()
    codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
    return Tokens(codes, coded.dictionary.to_pylist())


def _all_whole(cells: Any) -> bool:
    values = cells.drop_null().to_numpy(zero_copy_only=False)
    return bool((np.isfinite(values) & (values == np.floor(values)) & (abs(values) < 2**53)).all())


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever a reader raises into a UserError that names the file."""
    if not path.is_file():
        raise UserError(f"{path} not found; expected a table. Check the path.")
    try:
        yield
    except UserError:
        raise
    except (OSError, EOFError, ValueError, csv.Error, zlib.error, lzma.LZMAError) as error:
        # UnicodeDecodeError and pyarrow's ArrowInvalid are ValueErrors.
        raise UserError(
            f"{path} cannot be read to its end ({error}); expected a complete table of the kind "
            "that its suffix says, text in UTF-8 with every quote closed. It may be truncated."
        ) from error
