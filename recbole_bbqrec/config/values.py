"""Read options from YAML files and command lines, as plain data that is never executed."""

from __future__ import annotations

import ast
import copy
import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from recbole_bbqrec.config.yaml_files import packaged
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.reading import parse_yaml, read_yaml_file


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file of options as plain data.

    Raises:
        UserError: the file is missing, not YAML, or not a table of options.
    """
    remedy = f"Correct it, or give another config file.{packaged(path)}"
    content = read_yaml_file(path, "a YAML file of `key: value` lines", remedy)
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f"The config file {path} must hold `key: value` lines; it does not.")
    return content


def read_defaults(path: str | Path) -> dict[str, Any]:
    """Read a YAML file of defaults, which every configuration of a process needs.

    It is parsed again only when it has changed.
    """
    state = os.stat(path)
    return copy.deepcopy(_parsed(Path(path), state.st_ino, state.st_mtime_ns, state.st_size))


@lru_cache(maxsize=256)
def _parsed(path: Path, *state: int) -> dict[str, Any]:
    return read_yaml(path)


def parse_value(text: str) -> Any:
    """Parse a command-line value: a Python literal, a YAML word, or else the text itself.

    >>> [parse_value(text) for text in ("1e-3", "true", "[text, image]", "adam")]
    [0.001, True, ['text', 'image'], 'adam']
    """
    words = {"true": True, "false": False, "none": None, "null": None, "~": None, "": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        pass
    if text.startswith("["):  # without quotes around its texts, as shell users write it
        try:
            value = parse_yaml(text)
        except ValueError:
            return text
        return value if isinstance(value, list) else text
    return text


def parse_overrides(arguments: Iterable[str]) -> dict[str, Any]:
    """Parse ``--key=value`` arguments.

    Raises:
        UserError: an argument of another form, or a key given two values.
    """
    values: dict[str, Any] = {}
    for argument in arguments:
        key, equals, text = argument[2:].partition("=")
        if not argument.startswith("--") or not equals or not key:
            raise UserError(
                f"Cannot read the argument `{argument}`; expected --key=value, with equals sign."
            )
        value = parse_value(text)
        if key in values and values[key] != value:
            raise UserError(f"Option `{key}` is given twice: {values[key]!r} and {value!r}.")
        values[key] = value
    return values
