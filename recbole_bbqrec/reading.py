"""Files that are read: one function for each kind; whatever is wrong with one, the error names it.

A parser that meets a damaged file may raise anything. What it raises is wrapped by the kind of the
file, not by a list of exceptions. Content is data and is never executed.
"""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from recbole_bbqrec.errors import UserError, near_file

_DEEPEST = 100  # brackets within brackets in YAML
_MOST_VALUES = 100_000  # of a YAML file, those that aliases repeat included
_MERGE = "<<"  # the key of YAML that takes the content of another table
_SHOWN = 200  # characters of a parser's message
_ARRAY = b"\x93NUMPY"  # the first bytes of a .npy file


@contextmanager
def reading(path: str | os.PathLike[str], kind: str, remedy: str) -> Iterator[None]:
    """Turn every exception in the block, which reads ``path``, into an error that names the file.

    Args:
        path: the file.
        kind: what the file should be, such as "a checkpoint".
        remedy: what the user can do, a whole sentence.

    Raises:
        UserError: the file cannot be opened, is damaged, or is of another kind.
    """
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        cause = (error.strerror or str(error)).lower()
        raise UserError(
            f"{path} cannot be read: {cause}; expected {kind}.{near_file(path)} {remedy}"
        ) from error
    except Exception as error:
        cause = " ".join(f"{type(error).__name__}: {error}".split())[:_SHOWN].rstrip(".")
        raise UserError(
            f"{path} cannot be read: it is truncated, damaged or of another kind; expected {kind}. "
            f"{remedy} [{cause}]"
        ) from error


def read_text(path: str | Path, kind: str, remedy: str, encoding: str = "utf-8") -> str:
    """Return the text of a file."""
    with reading(path, f"{kind}, in UTF-8", remedy):
        return Path(path).read_text(encoding=encoding)


def read_json(path: str | Path, kind: str, remedy: str) -> Any:
    """Return the content of a JSON file."""
    with reading(path, kind, remedy):
        # Editors on Windows begin a file with a byte order mark.
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))


def read_json_object(path: str | Path, kind: str, remedy: str) -> dict[str, Any]:
    """Return the content of a JSON file that holds an object."""
    content = read_json(path, kind, remedy)
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object; expected {kind}. {remedy}")
    return content


class PlainLoader(yaml.SafeLoader):
    """SafeLoader for plain data: dates stay texts, and only tables, lists and values are built.

    It also reads ``1e-3`` as a number, as RecBole's files and users expect. A key that stands twice
    in a table is an error: one of the two values would be lost.
    """

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in getattr(node, "value", ()) if isinstance(key.value, str)]
        twice = [key for key in keys if keys.count(key) > 1 and key != _MERGE]
        if twice:
            raise ValueError(f"`{twice[0]}` is given twice in one table; remove one")
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: Any) -> Any:
        value = super().construct_scalar(node)
        value.encode()  # fails for half of a surrogate pair, which no file could hold
        return value


PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
PlainLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+0123456789."),
)
_PLAIN = ("null", "bool", "int", "float", "str", "seq", "map")
PlainLoader.yaml_constructors = {
    tag: build
    for tag, build in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] in _PLAIN
}


def parse_yaml(text: str) -> Any:
    """Parse YAML like ``yaml.safe_load``, into plain data.

    The loader is a SafeLoader, which builds no objects: YAML cannot run code here.

    Raises:
        ValueError: not YAML, nested too deeply, too large, a key that stands twice, or half of a
            surrogate pair.
    """
    loader = None
    if _deepest(text) > _DEEPEST:  # the parser would take minutes over thousands of brackets
        raise ValueError("nested too deeply")
    try:
        loader = PlainLoader(text)
        content = loader.get_single_data()
        if _count(content, {}) > _MOST_VALUES:
            raise ValueError(f"over {_MOST_VALUES:,} values, with those that aliases repeat")
        return content
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    finally:
        if loader is not None:
            loader.dispose()


def _deepest(text: str) -> int:
    """Return how deeply brackets are nested in ``text``."""
    depth = deepest = 0
    for bracket in re.findall(r"[\[\]{}]", text):
        depth = depth + 1 if bracket in "[{" else max(0, depth - 1)
        deepest = max(deepest, depth)
    return deepest


def _count(content: Any, known: dict[int, int]) -> int:
    """Return the number of values, each as often as aliases repeat it; ``known`` by identity."""
    if not isinstance(content, (list, dict)):
        return 1
    if id(content) not in known:
        known[id(content)] = _MOST_VALUES  # counts as too large if it holds itself
        parts = content.values() if isinstance(content, dict) else content
        known[id(content)] = 1 + sum(_count(part, known) for part in parts)
    return known[id(content)]


def read_yaml_file(path: str | Path, kind: str, remedy: str) -> Any:
    """Return the content of a YAML file."""
    with reading(path, kind, remedy):
        return parse_yaml(Path(path).read_text(encoding="utf-8"))


def open_array(path: str | Path, kind: str, remedy: str) -> np.ndarray:
    """Memory-map the array of a ``.npy`` file."""
    with reading(path, kind, remedy):
        with open(path, "rb") as file:
            if file.read(len(_ARRAY)) != _ARRAY:  # numpy.load would open an archive or a pickle
                raise ValueError("not a .npy file")
        rows: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        return rows


def read_arrays(path: str | Path, kind: str, remedy: str) -> dict[str, np.ndarray]:
    """Return the arrays of a ``.npz`` file by name; the checksum of each is verified."""
    with reading(path, kind, remedy):
        check_archive(path)
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}


def check_archive(path: str | Path) -> None:
    """Verify the checksum of every entry of a zip file; NumPy and torch do not, or not always.

    Raises:
        Exception: the file is no zip file, or an entry is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"the checksum of {damaged} does not fit")
