"""Read options from YAML files and command lines, as data that is never run."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from recbole_bbqrec.errors import UserError


class Loader(yaml.SafeLoader):
    """SafeLoader that reads ``1e-3`` as a number, as RecBole's files and users expect."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+0123456789."),
)


def parse_yaml(text: str) -> Any:
    """Parse YAML as plain data.

    Equals ``yaml.safe_load`` with one more number format: ``Loader`` is a SafeLoader, which builds
    no objects (a test feeds it a file that would run code).
    """
    loader = Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file of options as plain data.

    Raises:
        UserError: the file is missing, not YAML, or not a table of options.
    """
    try:
        content = parse_yaml(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"Cannot read the config file {path}: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"The config file {path} is not valid YAML: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f"The config file {path} must hold `key: value` lines; it does not.")
    return content


def parse_value(text: str) -> Any:
    """Parse a command-line value: a Python literal, a YAML-style word, or the text itself."""
    words = {"true": True, "false": False, "none": None, "null": None, "~": None, "": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        pass
    if text.startswith("["):  # a list without quotes: [text, image]
        try:
            value = parse_yaml(text)
        except yaml.YAMLError:
            return text
        return value if isinstance(value, list) else text
    return text


def parse_overrides(arguments: Iterable[str]) -> dict[str, Any]:
    """Parse ``--key=value`` arguments into a table.

    Raises:
        UserError: an argument of another form, or a key with two values.
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
