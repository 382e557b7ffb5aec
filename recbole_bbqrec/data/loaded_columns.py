"""Columns that RecBole will load from a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def is_loaded(column: str, source: str, load_col: Any, unload_col: Any) -> bool:
    """Return True if RecBole loads ``column``, if present, from files of ``source`` ("inter").

    ``load_col`` and ``unload_col`` are the options. Without ``load_col`` RecBole loads all
    columns; with it, none of a source that it does not name.
    """
    if column in _of_source(source, unload_col):
        return False
    names = "*" if load_col is None else _of_source(source, load_col)
    return names == "*" or column in names


def header_columns(path: Path, separator: str, encoding: str | None) -> dict[str, str] | None:
    """Map the names in a file's header to its words, ``name:type``; None if unreadable."""
    try:
        with open(path, encoding=encoding) as file:
            words = file.readline().rstrip("\r\n").split(separator)
    except (OSError, ValueError):
        return None
    return {word.partition(":")[0]: word for word in words}


def _of_source(source: str, option: Any) -> Any:
    return option.get(source, ()) if isinstance(option, Mapping) else ()
