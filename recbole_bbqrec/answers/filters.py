"""Filters of the items to recommend: lists of tokens, and conditions on item columns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from logging import getLogger
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from recbole_bbqrec.errors import UserError, did_you_mean
from recbole_bbqrec.prepare.atomic_files import ITEM_TABLE
from recbole_bbqrec.prepare.tables.cells import token_cell
from recbole_bbqrec.prepare.tables.columns import find_column
from recbole_bbqrec.prepare.tables.query import Table

_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
_CONDITION = re.compile(r"\s*(.+?)\s*(<=|>=|!=|=|<|>|\bin\b|\bcontains\b)\s*(.*?)\s*")
_NAMED = 3  # tokens that a message names
_EXPECTED = 'a column, one of = != < <= > >= in contains, and a value, such as "price < 20"'


class Condition(NamedTuple):
    """A condition on a column of the items; ``value`` is a number or a text, ``in`` takes several.

    >>> Condition.parse("price <= 20")
    Condition(column='price', operator='<=', value='20')
    >>> Condition.parse("brand in acme, ajax").value
    'acme, ajax'
    """

    column: str
    operator: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Read a condition.

        Raises:
            UserError: it is not a column, an operator and a value.
        """
        found = _CONDITION.fullmatch(text)
        if found is None or not found[3]:
            raise UserError(f"--where is {text!r}; expected {_EXPECTED}.")
        value = found[3]
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        return cls(found[1], found[2], value)

    @property
    def values(self) -> list[str]:
        """Values that a cell is compared with: several for ``in``."""
        if self.operator != "in":
            return [self.value]
        return [part.strip() for part in self.value.split(",")]

    def sql(self, column: str) -> tuple[str, list[object]]:
        """Return an expression over ``column`` with placeholders, and their values.

        Numbers are compared as numbers, everything else as text. A missing cell meets no condition.
        """
        if self.operator == "contains":
            return f"contains(lower({column}::VARCHAR), lower(?))", [self.value]
        if self.operator == "in":
            pairs = [Condition(self.column, "=", part).sql(column) for part in self.values]
            values = [value for _, bound in pairs for value in bound]
            return "(" + " OR ".join(text for text, _ in pairs) + ")", values
        sign = {"!=": "<>"}.get(self.operator, self.operator)
        # A time at midnight, as libraries write a date, is compared as its date.
        text = f"regexp_replace({column}::VARCHAR, '[ T]00:00:00(\\.0+)?$', '')"
        as_text = f"{text} {sign} ?"
        if not _NUMBER.fullmatch(self.value):
            return as_text, [self.value]
        number = f"nullif(TRY_CAST({column}::VARCHAR AS DOUBLE), 'nan'::DOUBLE)"
        if sign not in ("=", "<>"):
            return f"{number} {sign} ?", [float(self.value)]
        return (
            f"CASE WHEN {number} IS NULL THEN {as_text} ELSE {number} {sign} ? END",
            [self.value, float(self.value)],
        )


def items_that(conditions: Sequence[Condition], path: Path) -> set[str]:
    """Return the tokens of the items in the table at ``path`` that meet all conditions.

    Raises:
        UserError: the table is unreadable or lacks a column, or a column of numbers is compared
            with something else.
    """
    with Table(path) as table:
        item = _column_of_items(table)
        for condition in conditions:
            if condition.column not in table.header:
                raise UserError(
                    f"--where names the column {condition.column!r}; {path} has "
                    f"{', '.join(table.header)}.{did_you_mean(condition.column, table.header)}"
                )
        names = list(dict.fromkeys(condition.column for condition in conditions))
        cells = {f"cell{n}": table.column(name)[0] for n, name in enumerate(names)}
        table.load({"item": item, **cells})
        for each in conditions:
            _check_values(table, each, f"cell{names.index(each.column)}")
        pairs = [each.sql(f"cell{names.index(each.column)}") for each in conditions]
        clause = " AND ".join(f"({text})" for text, _ in pairs)
        values = [value for _, bound in pairs for value in bound]
        rows = table.query(f"SELECT item FROM cells WHERE {clause}", *values).fetchall()
    return {str(token).strip() for (token,) in rows if token is not None}


def warn_of_missing_rows(path: Path, items: Iterable[str]) -> None:
    """Log a warning if the table at ``path`` lacks some of a run's ``items``: no condition holds.

    Raises:
        UserError: the table is unreadable, or has no column of items.
    """
    with Table(path) as table:
        table.load({"item": _column_of_items(table)})
        rows = table.query("SELECT DISTINCT item FROM cells WHERE item IS NOT NULL")
        listed = {str(token).strip() for (token,) in rows.fetchall()}
    missing = [token for token in items if token not in listed]
    if missing:
        getLogger().warning(
            f"{len(missing):,} items of the run have no row in {path} ({first_of(missing)}): they "
            "meet no condition. Add their rows to the table."
        )


def first_of(tokens: Sequence[str]) -> str:
    """Return the first three tokens as text.

    >>> first_of(["a", "b", "c", "d"])
    'a, b, c, ...'
    """
    return ", ".join(tokens[:_NAMED]) + (", ..." if len(tokens) > _NAMED else "")


def _check_values(table: Table, condition: Condition, cell: str) -> None:
    """Raise a UserError if a column of numbers is compared with something that is none."""
    others = [value for value in condition.values if not _NUMBER.fullmatch(value)]
    if condition.operator == "contains" or not others:
        return
    filled = f"nullif(trim({cell}::VARCHAR), '')"
    row = table.query(
        f"SELECT count({filled}), count(TRY_CAST({filled} AS DOUBLE)) FROM cells"
    ).fetchone()
    if row is not None and 0 < row[0] == row[1]:
        raise UserError(
            f"--where compares the column {condition.column!r} of {table.path}, which holds "
            f'numbers, with {others[0]!r}; expected a number, such as "{condition.column} '
            f'{condition.operator} 20".'
        )


def _column_of_items(table: Table) -> str:
    """Return the expression of the column of item tokens."""
    if table.json_lines:
        table.read_keys()
    item = find_column(table.path, table.header, "item", None, option="item_id")
    return token_cell(table, str(item))


def item_table(data: Path, dataset: str) -> Path:
    """Return the file with the items' columns of a data set in the folder ``data``.

    It is the table that `prepare --items` kept, else RecBole's NAME.item.

    Raises:
        UserError: there is none.
    """
    paths = [data / f"{dataset}.{suffix}" for suffix in (ITEM_TABLE, "item")]
    for path in paths:
        if path.is_file():
            return path
    raise UserError(
        "--where needs columns of the items, and the run's data have none "
        f"({paths[0].name}, which `prepare --items` writes, or {paths[1].name}). Give a table with "
        "them: --items=FILE (.csv, .tsv, .parquet or .jsonl)."
    )


def mask_of(item_ids: Mapping[str, int], n_items: int, tokens: Iterable[str]) -> Tensor:
    """Return True at the items of ``tokens`` that are known, bool [n_items]."""
    mask = torch.zeros(n_items, dtype=torch.bool)
    ids = [item_ids[token] for token in tokens if token in item_ids]
    mask[ids] = True
    return mask
