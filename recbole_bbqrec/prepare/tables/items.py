"""Titles and texts of the catalogue from the user's table of items."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from recbole_bbqrec.errors import UserError, did_you_mean
from recbole_bbqrec.prepare.interactions import is_token
from recbole_bbqrec.prepare.tables.cells import token_cell
from recbole_bbqrec.prepare.tables.columns import find_column, usual_columns
from recbole_bbqrec.prepare.tables.ledger import Ledger
from recbole_bbqrec.prepare.tables.query import Table
from recbole_bbqrec.prepare.tables.text_store import TextStore
from recbole_bbqrec.prepare.text import item_text

#: Columns that make an item's text by default, if the table has them.
USUAL_TEXT = ("title", "name", "product_title", "product_name", "prod_name", "description", "brand",
              "category", "categories")  # fmt: skip
_KEY_LINES = 1000  # lines that say which keys the objects have


@dataclass(frozen=True)
class ItemOptions:
    """Columns of a table of items; None (or an empty tuple) for the usual ones.

    ``separator`` and ``no_header`` are as of the interactions.
    """

    item: str | None = None
    title: str | None = None
    text: tuple[str, ...] = ()
    separator: str | None = None
    no_header: bool = False


@dataclass
class ItemTable:
    """Rows of a table of items that describe the catalogue.

    Attributes:
        codes: int32 [rows], each row's item, -1 where the row is not used; None where rows with
            another number of fields than the header leave the places of the others unknown.
        text_codes: int64 [n_texts], codes of the items that have a text.
        texts: their texts, in that order.
        text_columns: the columns that the texts are made of.
    """

    codes: np.ndarray | None
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
        UserError: the file or a column is missing or unreadable, or no row is of an item in the
            catalogue.
    """
    seen = np.zeros(len(catalogue), dtype=bool)
    codes: list[int] = []
    text_codes: list[int] = []
    with (
        _open(path, options) as table,
        open(titles, "w", encoding="utf-8", newline="\n", errors="replace") as file,
    ):
        columns = _columns(table, options)
        file.write("item_id\ttitle\n")
        for row, cells in _rows(table, columns):
            codes.append(-1)
            if cells is None:
                ledger.add("unreadable rows of the items file", 1, table.place(row), fault=True)
                continue
            name = _token(cells[0])
            code = catalogue.get(name, -1)
            if not name:
                ledger.add("rows of the items file without an item", 1,
                           table.place(row), fault=True)  # fmt: skip
            elif code < 0:
                ledger.add("rows of the items file whose item has no interaction left", 1)
            elif seen[code]:
                ledger.add("later rows of the items file for the same item", 1,
                           table.place(row), fault=True)  # fmt: skip
            else:
                seen[code] = True
                codes[-1] = code
                fields = dict(zip(columns.text, map(_as_written, cells[2:])))
                text = item_text(fields, columns.text)
                if text:
                    store.append(text)
                    text_codes.append(code)
                # Reports show the text of an item without a title.
                title = item_text({"title": _as_written(cells[1])}, ("title",)) or text
                file.write(f"{name}\t{title}\n")
        ledger.add("unreadable rows of the items file", len(table.skipped),
                   f"line {(table.skipped or [0])[0]}", fault=True)  # fmt: skip
        table.check_has_rows(len(codes) + len(table.skipped))
        if not seen.any():
            raise UserError(
                f"{path}: none of its rows is of an item with interactions; expected the same "
                f"tokens in column {columns.all[0]!r} as among the interactions (for example "
                f"{next(iter(catalogue))!r}). Check --items_item_column."
            )
        file.writelines(f"{name}\t\n" for name, code in catalogue.items() if not seen[code])
    ledger.add("items without a row in the items file", int((~seen).sum()))
    if columns.text:
        ledger.add("items without a text", len(seen) - len(text_codes))
    row_codes = None if table.skipped else np.array(codes, dtype=np.int32)
    return ItemTable(row_codes, np.array(text_codes, dtype=np.int64), store, columns.text)


def item_names(path: Path, options: ItemOptions) -> list[str]:
    """Return the usable tokens of a table of items, each once, in the order of the rows."""
    with _open(path, options) as table:
        columns = _columns(table, options)
        tokens = (_token(cells[0]) for _, cells in _rows(table, columns) if cells is not None)
        return [token for token in dict.fromkeys(tokens) if is_token(token)]


def item_tokens(path: Path, options: ItemOptions) -> list[str]:
    """Return the raw item token of each row, "" where it has none."""
    with _open(path, options) as table:
        columns = _columns(table, options)
        return [_token(cells[0]) if cells else "" for _, cells in _rows(table, columns)]


def shared_item_columns(
    interactions: Table, path: Path, name: str | None, options: ItemOptions
) -> tuple[str | None, ItemOptions]:
    """Return the columns of the item in the interactions and in the items, of one name if possible.

    Amazon's reviews of 2023 have `asin` and `parent_asin`, its items the latter alone.

    Args:
        interactions: their table.
        path: the items.
        name: the column of the interactions, if it is given.
        options: those of the items.
    """
    with _open(path, options) as table:
        if table.json_lines:
            table.read_keys()
        ours, theirs = interactions.header, table.header
    given = [each for each in (name, options.item) if each is not None]
    both = [each for each in given or usual_columns(theirs, "item") if each in ours]
    shared = next((each for each in both if each in theirs), None)
    if shared is None:
        return name, options
    return name or shared, replace(options, item=options.item or shared)


def _open(path: Path, options: ItemOptions) -> Table:
    return Table(path, options.separator, not options.no_header)


@dataclass(frozen=True)
class _Columns:
    all: tuple[str, ...]  # item, title, and those of the text
    text: tuple[str, ...]


def _columns(table: Table, options: ItemOptions) -> _Columns:
    path, header = table.path, table.header
    if table.json_lines:
        table.load({"line": "c0"})
        header = _json_keys(table)
    item = find_column(path, header, "item", options.item, option="--items_item_column")
    usual = {name.lower().replace(" ", "_"): name for name in reversed(header)}
    text = options.text or tuple(usual[name] for name in USUAL_TEXT if name in usual)
    for name in text:
        if name not in header:
            raise UserError(
                f"{path} has no column {name!r} (--text_columns); its header is "
                f"{', '.join(header)}.{did_you_mean(name, header)} Name some of these."
            )
    title = find_column(path, header, "title", options.title, required=False)
    assert item is not None
    return _Columns((item, title or (text[0] if text else item), *text), text)


def _json_keys(table: Table) -> list[str]:
    """Return the keys of the first objects, in the order met."""
    keys: dict[str, None] = {}
    for _, record in islice(_records(table), _KEY_LINES):
        keys.update(dict.fromkeys(record or ()))
    if not keys:
        raise UserError(
            f"{table.path}: expected one JSON object a line; there is none at its start."
        )
    return list(keys)


def _rows(table: Table, columns: _Columns) -> Iterator[tuple[int, Sequence[Any] | None]]:
    """Yield number and cells of each row in the order of the file, None for bad JSON."""
    if table.json_lines:
        for row, record in _records(table):
            yield row, None if record is None else [record.get(name) for name in columns.all]
        return
    cells = {f"cell{n}": table.column(name)[0] for n, name in enumerate(columns.all)}
    if not table.parquet:
        cells["cell0"] = token_cell(table, columns.all[0])
    table.load(cells)
    for row, *values in table.rows():
        yield row, values


def _records(table: Table) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Yield number and object of each line that is not blank, None if it holds no object."""
    for row, line in table.rows():
        if line is None or not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        yield row, record if isinstance(record, dict) else None


def _token(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # whole numbers beside missing ones are floats when pandas writes them
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        return str(value).strip()
    return ""


def _as_written(cell: object) -> object:
    """Return a cell for :func:`item_text`: numbers as text, whatever the table's format."""
    if isinstance(cell, (int, float)) and not isinstance(cell, bool) and cell == cell:
        return str(cell)
    return cell
