"""Cells of a number column as numbers, whether it holds numbers, dates or times."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from recbole_bbqrec.errors import UserError

_SAMPLE = 1000  # values that decide between numbers and dates


class Numbers(NamedTuple):
    """A number column: int64 or float64 [rows], and bool [rows] where it is a finite number."""

    values: np.ndarray
    valid: np.ndarray


class NumberReader:
    """Turns cells into numbers; remembers whether the column holds numbers or dates."""

    def __init__(self, dates: bool) -> None:
        self._dates: bool | None = None if dates else False  # None: not known yet

    def read(self, cells: np.ndarray) -> Numbers:
        if cells.dtype.kind == "M":
            valid = ~np.isnat(cells)
            # In the file's unit: cut to microseconds, nanoseconds would lose their order.
            return Numbers(np.where(valid, cells.astype(np.int64), 0), valid)
        if cells.dtype.kind in "iu" and self._dates is not True and _fits(cells):
            self._dates = False
            return Numbers(cells.astype(np.int64), np.ones(len(cells), dtype=bool))
        if cells.dtype.kind != "f":
            cells = cells.astype(object)
        return self._parse(pd.Series(cells))

    def _parse(self, cells: pd.Series) -> Numbers:
        if self._dates is None:
            sample = cells[cells.notna()].iloc[:_SAMPLE].astype(str)
            numbers = pd.to_numeric(sample, errors="coerce").notna().sum()
            dates = _to_dates(sample).notna().sum()
            if numbers or dates:
                self._dates = bool(dates > numbers)
        if self._dates:
            dates = _to_dates(cells)
            valid = dates.notna().to_numpy()
            micro = dates.to_numpy().astype("datetime64[us]").astype(np.int64)
            return Numbers(np.where(valid, micro, 0), valid)
        values = pd.to_numeric(cells, errors="coerce").to_numpy()
        if values.dtype.kind in "iu" and _fits(values):
            return Numbers(values.astype(np.int64), np.ones(len(values), dtype=bool))
        values = values.astype(np.float64)
        valid = np.isfinite(values)
        values = np.where(valid, values, 0.0)
        whole = bool((values == np.floor(values)).all() and (np.abs(values) < 2.0**53).all())
        return Numbers(values.astype(np.int64) if whole else values, valid)


def parquet_numbers(path: Path, column: str, cells: Any) -> np.ndarray:
    """A column of a parquet file as :meth:`NumberReader.read` takes it, [rows].

    Dates and timestamps are datetime64 of one unit a column, NaT where missing.

    Raises:
        UserError: the column is a time of day or a duration.
    """
    import pyarrow as pa

    kind = cells.type
    if pa.types.is_boolean(kind):
        cells = cells.cast(pa.string())  # no number
    elif pa.types.is_decimal(kind):
        cells = cells.cast(pa.float64())
    elif pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        fine = pa.types.is_timestamp(kind) and kind.unit == "ns"
        cells = cells.cast(pa.timestamp("ns" if fine else "us"))
    elif pa.types.is_temporal(kind):
        raise UserError(
            f"{path}: column {column!r} is {kind}; expected numbers, dates or timestamps. "
            "Convert it."
        )
    return np.asarray(cells.to_numpy(zero_copy_only=False))


def _to_dates(cells: pd.Series) -> pd.Series:
    dates = pd.to_datetime(cells.astype(str), format="ISO8601", errors="coerce", utc=True)
    return dates.dt.tz_localize(None)


def _fits(cells: np.ndarray) -> bool:
    return cells.dtype.kind == "i" or not len(cells) or int(cells.max()) < 2**63
