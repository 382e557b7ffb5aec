"""A table of items of one's own: which rows describe the catalogue, their titles and texts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.prepare.tables.columns import find_column
from recbole_bbqrec.prepare.tables.files import (
    CHUNK_ROWS,
    PARQUET,
    open_text,
    read_header,
    reading,
    suffix_of,
    text_chunks,
)
from recbole_bbqrec.prepare.tables.ledger import Ledger
from recbole_bbqrec.prepare.tables.text_store import TextStore
from recbole_bbqrec.prepare.text import item_text

#: Columns that make an item's text when none are named, those that the table has.
USUAL_TEXT = ("title", "name", "product_title", "product_name", "prod_name", "description", "brand",
              "category", "categories")  # fmt: skip
JSON_LINES = (".jsonl", ".ndjson")


@dataclass(frozen=True)
class ItemOptions:
    """How to read a table of items: column names, None (or none) for the usual ones."""

    item: str | None = None
    title: str | None = None
    text: tuple[str, ...] = ()


@dataclass
class ItemTable:
    """What a table of items says about the catalogue.

    Attributes:
        codes: int32 [rows], each row's item; -1 where the row is not used.
        text_codes: int64 [n_texts], items that have a text.
        texts: their texts, in that order.
        text_columns: the columns that the texts are made of.
    """

    codes: np.ndarray
    text_codes: np.ndarray
    texts: TextStore
    text_columns: tuple[str, ...]


def read_items(
    path: Path,
    options: ItemOptions,
    catalogue: Mapping[str, int],
    titles: Path,
    store: TextStore,
    ledger: Ledger,
) -> ItemTable:
    """Read titles and texts of the items of ``catalogue``; the order of the rows is kept.

    Args:
        path: CSV, TSV, parquet, or one JSON object a line (``.jsonl``).
        options: the columns.
        catalogue: raw token to code of the items that have interactions.
        titles: the file of titles to write: ``item_id<tab>title``, all items of the catalogue.
        store: empty; takes the texts.
        ledger: takes counts of rows and items left out.

    Raises:
        UserError: the file or a column is missing or unreadable, or no row is of the catalogue.
    """
    header, columns = _columns(path, options)
    seen = np.zeros(len(catalogue), dtype=bool)
    codes: list[np.ndarray] = []
    text_codes: list[int] = []
    with open(titles, "w", encoding="utf-8", newline="\n", errors="replace") as file:
        file.write("item_id\ttitle\n")
        for skipped, lines, rows in _rows(path, header, columns.all):
            if skipped:
                ledger.add("unreadable rows of the items file", len(skipped),
                           f"line {skipped[0]}", fault=True)  # fmt: skip
            chunk = np.full(len(rows) + len(skipped), -1, dtype=np.int32)
            # A row that cannot be read keeps its place, for features in the order of the file.
            place = np.arange(len(rows)) + np.searchsorted(skipped, lines)
            for number, (token, title, *cells) in enumerate(rows):
                name = _token(token)
                if not name:
                    ledger.add("rows of the items file without an item", 1,
                               f"{_place(path)} {lines[number]}", fault=True)  # fmt: skip
                    continue
                code = catalogue.get(name, -1)
                if code < 0:
                    ledger.add("rows of the items file whose item has no interaction left", 1)
                    continue
                if seen[code]:
                    ledger.add("later rows of the items file for the same item", 1,
                               f"{_place(path)} {lines[number]}", fault=True)  # fmt: skip
                    continue
                seen[code] = True
                chunk[place[number]] = code
                fields = dict(zip(columns.text, map(_as_written, cells)))
                text = item_text(fields, columns.text)
                if text:
                    store.append(text)
                    text_codes.append(code)
                # Without a title, the rest of the text is better than nothing for a reader.
                readable = item_text({"title": _as_written(title)}, ("title",)) or text
                file.write(f"{name}\t{readable}\n")
            codes.append(chunk)
        if not seen.any():
            raise UserError(
                f"{path}: none of its rows is of an item with interactions; expected the same "
                f"tokens in column {columns.all[0]!r} as among the interactions (for example "
                f"{next(iter(catalogue))!r}). Check --items-item-column."
            )
        file.writelines(f"{name}\t\n" for name, code in catalogue.items() if not seen[code])
    ledger.add("items without a row in the items file", int((~seen).sum()))
    if columns.text:
        ledger.add("items without a text", len(seen) - len(text_codes))
    return ItemTable(
        np.concatenate(codes), np.array(text_codes, dtype=np.int64), store, columns.text
    )


@dataclass(frozen=True)
class _Columns:
    all: tuple[str, ...]  # item, title, and those of the text
    text: tuple[str, ...]


def _columns(path: Path, options: ItemOptions) -> tuple[list[str], _Columns]:
    json_lines = suffix_of(path) in JSON_LINES
    header = _json_keys(path) if json_lines else read_header(path)
    item = find_column(path, header, "item", options.item, option="--items-item-column")
    usual = {name.lower().replace(" ", "_"): name for name in reversed(header)}
    text = options.text or tuple(usual[name] for name in USUAL_TEXT if name in usual)
    for name in text:
        if name not in header:
            raise UserError(
                f"{path} has no column {name!r} (--text-columns); its header is "
                f"{', '.join(header)}. Name some of these."
            )
    title = find_column(path, header, "title", options.title, required=False)
    assert item is not None
    return header, _Columns((item, title or (text[0] if text else item), *text), text)


def _json_keys(path: Path, lines: int = 1000) -> list[str]:
    """Keys of the first objects, in the order met."""
    keys: dict[str, None] = {}
    with reading(path), open_text(path) as file:
        for _, line in zip(range(lines), file):
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                keys.update(dict.fromkeys(record))
    if not keys:
        raise UserError(f"{path}: expected one JSON object a line; there is none at its start.")
    return list(keys)


def _rows(
    path: Path, header: Sequence[str], columns: Sequence[str]
) -> Iterator[tuple[list[int], np.ndarray, list[tuple[Any, ...]]]]:
    if suffix_of(path) not in JSON_LINES:
        yield from text_chunks(path, header, columns)
        return
    with reading(path), open_text(path) as file:
        numbered = enumerate(file, start=1)
        while batch := list(islice(numbered, CHUNK_ROWS)):
            skipped, lines, rows = [], [], []
            for number, line in batch:
                if not line.strip():
                    continue
                try:
                    record = json.loads(line)
                except ValueError:
                    record = None
                if isinstance(record, dict):
                    lines.append(number)
                    rows.append(tuple(record.get(column) for column in columns))
                else:
                    skipped.append(number)
            yield skipped, np.array(lines, dtype=np.int64), rows


def _token(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # whole numbers beside missing ones are floats when pandas writes them
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        return str(value).strip()
    return ""


def _as_written(cell: object) -> object:
    """A cell as :func:`item_text` takes it: numbers as text, whatever the table's format."""
    if isinstance(cell, (int, float)) and not isinstance(cell, bool) and cell == cell:
        return str(cell)
    return cell


def _place(path: Path) -> str:
    return "row" if suffix_of(path) in PARQUET else "line"
