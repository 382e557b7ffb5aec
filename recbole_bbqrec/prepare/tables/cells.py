"""SQL expressions that read the cells of a table: tokens, numbers and times."""

from __future__ import annotations

import duckdb
import numpy as np

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.prepare.tables.query import Table

_SAMPLE = 1000  # readable cells that decide between numbers and dates
_EXACT = 2**53  # whole numbers below it are exact as doubles
_INTEGERS = ("tinyint", "smallint", "integer", "bigint", "hugeint")
# Adds forms of ISO 8601 that DuckDB's cast refuses; refuses `epoch` and `infinity`, which it takes.
_DATE = (
    "epoch_us(coalesce(TRY_CAST({0} AS TIMESTAMPTZ), try_strptime({0}, ['%Y-%m', '%Y-%m-%dT%H', "
    "'%Y%m%dT%H%M', '%Y%m%dT%H%M%S', '%Y%m%dT%H%M%S%z'])::TIMESTAMPTZ))"
).format(
    r"regexp_replace(regexp_replace(regexp_extract({0}, '^\s*(\d.*?)\s*$', 1), "
    r"'\s*(UTC|GMT)$', '+00'), '\s+([+-])', '\1')"
)


def token_cell(table: Table, name: str) -> str:
    """Return the expression of a column of tokens, as text.

    Raises:
        UserError: a column of a parquet file is neither text nor whole numbers.
    """
    column, kind = table.column(name)
    if kind in ("float", "double"):
        # Whole numbers beside missing ones are doubles when pandas writes them.
        whole = f"isfinite({column}) AND {column} = floor({column}) AND abs({column}) < {_EXACT}"
        row = table.query(f"SELECT bool_and({whole}) FROM {table.source()}").fetchone()
        if row is not None and row[0] is not False:
            return f"{column}::BIGINT::VARCHAR"
    elif kind == "varchar":
        # As text, too, pandas writes 21.0 where another row had none.
        trimmed = f"trim({column})"
        whole = f"regexp_full_match({trimmed}, '\\d{{1,15}}\\.0') OR {trimmed} = ''"
        for rows in (f"LIMIT {_SAMPLE}", ""):  # most files need no more than the sample
            row = table.query(
                f"SELECT bool_and({whole}) FROM (SELECT * FROM {table.source()} {rows})"
            ).fetchone()
            if row is None or not row[0]:
                return column
        return f"regexp_replace({trimmed}, '\\.0$', '')"
    elif kind.lstrip("u") in _INTEGERS:
        return f"{column}::VARCHAR"
    raise UserError(
        f"{table.path}: column {name!r} is {kind}; expected text or whole numbers. Convert it."
    )


def number_cell(table: Table, name: str) -> str:
    """Return the expression of a column of numbers as double, NULL where it holds none."""
    return f"TRY_CAST({_number(table, name, dates=False)[0]} AS DOUBLE)"


def time_cell(
    table: Table, name: str, dates: bool, form: str | None = None
) -> tuple[str, str, float | None]:
    """Return two expressions to sort by: a double, and what it lacks to a large whole number.

    Nanoseconds of today exceed what a double tells apart. The third value is the length of the
    double's unit in seconds; None for plain numbers.

    Args:
        table: the table.
        name: the column.
        dates: whether text may hold ISO 8601 dates instead of numbers; a column holds either, and
            its first cells decide.
        form: format of text, as of Python's strptime; None for ISO 8601.

    Raises:
        UserError: a column of a parquet file is a time of day or an interval, or ``form`` is no
            format.
    """
    number, unit = _number(table, name, dates)
    if form is not None and table.column(name)[1] == "varchar":
        _check_format(form)
        quoted = form.replace("'", "''")
        number = f"epoch_us(try_strptime(trim({table.column(name)[0]}), '{quoted}')::TIMESTAMPTZ)"
        unit = 1e-6
    time = f"TRY_CAST({number} AS DOUBLE)"
    rest = f"TRY_CAST({number} AS HUGEINT) - TRY_CAST({time} AS HUGEINT)"
    rest = f"coalesce(TRY_CAST({rest} AS SMALLINT), 0)"
    return time, f"(CASE WHEN abs({time}) < {_EXACT} THEN 0 ELSE {rest} END)::SMALLINT", unit


def _check_format(form: str) -> None:
    try:
        with duckdb.connect(":memory:") as database:
            database.execute("SELECT try_strptime('', $1)", [form])
    except duckdb.Error as error:
        raise UserError(
            f"--time_format is {form!r}, which is no format of times ({error}); expected one such "
            "as %m/%d/%Y or '%d.%m.%Y %H:%M'."
        ) from None


def seconds(times: np.ndarray, unit: float | None) -> np.ndarray:
    """Return times, float64 [n] in ``unit`` seconds, as seconds.

    Of plain numbers the size tells the unit: today is 1.8e9 in seconds, 1.8e12 in milliseconds.
    """
    if unit is None:
        middle = float(np.median(np.abs(times))) if len(times) else 0.0
        unit = next((u for low, u in ((1e17, 1e-9), (1e14, 1e-6), (1e11, 1e-3)) if middle > low), 1)
    return times if unit == 1 else times / round(1 / unit)


def _number(table: Table, name: str, dates: bool) -> tuple[str, float | None]:
    """Return the expression of a column as something that can be cast to a number, and its unit.

    The unit is in seconds; None for plain numbers.
    """
    column, kind = table.column(name)
    if kind.startswith("timestamp") or kind == "date":
        unit = "ns" if kind.endswith("_ns") else "us"
        return f"epoch_{unit}({column})", 1e-9 if unit == "ns" else 1e-6
    if kind.startswith(("time", "interval")):
        raise UserError(
            f"{table.path}: column {name!r} is {kind}; expected numbers, dates or timestamps. "
            "Convert it."
        )
    if kind == "boolean":
        return "NULL", None
    if kind == "varchar" and dates and _holds_dates(table, column):
        return _DATE.format(column), 1e-6
    return column, None


def _holds_dates(table: Table, column: str) -> bool:
    """Return True if more of the first readable cells are dates than numbers."""
    row = table.query(
        f"SELECT count(date) > count(number) FROM (SELECT {_DATE.format(column)} AS date, "
        f"TRY_CAST({column} AS DOUBLE) AS number FROM {table.source()} "
        f"WHERE date IS NOT NULL OR number IS NOT NULL LIMIT {_SAMPLE})"
    ).fetchone()
    return row is not None and bool(row[0])
