"""Read and check the source files that a data set is prepared from.

Layout of a source folder:

* ``interactions.tsv.gz``: header ``user_id  item_id  order`` (tab separated), the rows of a user
  contiguous and in time order, ``order`` counting from 0;
* ``items.jsonl.gz``: one JSON object a line, ``item_id`` and any of ``title``, ``description``,
  ``brand``, ``categories``;
* optional ``times.tsv.gz``: header ``user_id  item_id  order  unix_time``, the same rows with the
  Unix time of each event in seconds, empty for every event of a user whose times are not known;
* optional ``text_<encoder>.npy``: precomputed text vectors, rows as in ``items.jsonl.gz``;
* optional ``image_labels_multihot.npz`` (key ``multihot``, 0/1 [rows, labels]) with
  ``image_items.txt``, the item of each row.

Every fault is a :class:`UserError` that names the file and, if known, the line.
"""

from __future__ import annotations

import gzip
import json
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from recbole_bbqrec.data.features import read_item_list
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.prepare.interactions import Interaction, is_token

_HEADER = ("user_id", "item_id", "order")


def read_items(folder: Path) -> dict[str, dict[str, Any]]:
    """Read items by raw token, in file order, from ``items.jsonl.gz``."""
    path = folder / "items.jsonl.gz"
    items: dict[str, dict[str, Any]] = {}
    for number, line in _lines(path):
        try:
            item = json.loads(line)
        except json.JSONDecodeError as error:
            raise _bad(path, number, f"is not JSON ({error})", "one JSON object") from error
        token = item.get("item_id") if isinstance(item, dict) else None
        if not isinstance(token, str):
            raise _bad(path, number, "has no item_id", 'an object with a text "item_id"')
        _check_token(path, number, token)
        if token in items:
            raise _bad(path, number, f"repeats item {token!r}", "every item once")
        items[token] = item
    if not items:
        raise UserError(f"{path} holds no item; expected one JSON object per line.")
    return items


def read_interactions(folder: Path, items: dict[str, Any]) -> list[Interaction]:
    """Read all events in file order; each item must be in ``items``."""
    path = folder / "interactions.tsv.gz"
    events: list[Interaction] = []
    finished: set[str] = set()  # users seen so far
    user, position = "", 0
    lines = _lines(path)
    header = next(lines, (1, ""))[1]
    if tuple(header.split("\t")) != _HEADER:
        raise _bad(path, 1, f"is {header!r}", "the header " + "<tab>".join(_HEADER))
    for number, line in lines:
        fields = line.split("\t")
        if len(fields) != len(_HEADER):
            raise _bad(path, number, f"has {len(fields)} columns", "3 columns split by tabs")
        if fields[0] != user:
            user, position = fields[0], 0
            _check_token(path, number, user)
            if user in finished:
                raise _bad(path, number, f"returns to user {user!r}", "contiguous users")
            finished.add(user)
        if fields[1] not in items:
            raise _bad(path, number, f"has item {fields[1]!r}", "an item of items.jsonl.gz")
        if fields[2] != str(position):
            raise _bad(path, number, f"has order {fields[2]!r}", f"order {position}")
        events.append(Interaction(user, fields[1], position))
        position += 1
    if not events:
        raise UserError(f"{path} holds no interaction; expected rows below the header.")
    return events


def read_times(folder: Path, events: list[Interaction]) -> list[int] | None:
    """Return the Unix times of ``events``, in their order; None if the folder has no times.

    A user without times gets positions, which are taken for unknown times.
    """
    path = folder / "times.tsv.gz"
    if not path.is_file():
        return None
    header = (*_HEADER, "unix_time")
    times: list[int] = []
    lines = _lines(path)
    first = next(lines, (1, ""))[1]
    if tuple(first.split("\t")) != header:
        raise _bad(path, 1, f"is {first!r}", "the header " + "<tab>".join(header))
    known = False  # of the present user
    for number, line in lines:
        event = events[number - 2] if number - 2 < len(events) else None
        fields = line.split("\t")
        if event is None or fields[:3] != [event.user, event.item, str(event.order)]:
            expected = "no further row" if event is None else "\t".join(map(str, event))
            raise _bad(
                path, number, f"is {line!r}",
                f"the rows of interactions.tsv.gz, with times: {expected!r}",
            )  # fmt: skip
        text = fields[3] if len(fields) == 4 else "nothing"
        if event.order == 0:
            known = text != ""
        if not known and text == "":
            times.append(event.order)
            continue
        if not known or not re.fullmatch(r"-?\d{1,18}", text):
            raise _bad(
                path, number, f"has the time {text!r}",
                "whole seconds, or nothing for all events of a user",
            )  # fmt: skip
        if event.order and int(text) < times[-1]:
            raise _bad(path, number, f"goes back to {text}", f"at least {times[-1]}")
        times.append(int(text))
    if len(times) != len(events):
        raise UserError(
            f"{path} has {len(times):,} rows; expected {len(events):,}, as interactions.tsv.gz. "
            "The file is probably truncated: fetch it again."
        )
    return times


def read_precomputed_text(
    folder: Path, n_items: int, item_file: str = "items.jsonl.gz"
) -> tuple[str, np.ndarray]:
    """Return file name and matrix [n_items, dim] of the only ``text_*.npy`` in ``folder``.

    Messages name ``item_file``, whose lines are the matrix's rows.
    """
    paths = sorted(folder.glob("text_*.npy"))
    if len(paths) != 1:
        raise UserError(
            f"{folder} has {len(paths)} files text_*.npy; --text_encoder precomputed needs "
            "exactly one. Add or remove one, or use --text_encoder tfidf."
        )
    matrix = _load(paths[0], None)
    if matrix.ndim != 2 or matrix.dtype.kind != "f" or matrix.shape[1] == 0:
        raise UserError(
            f"{paths[0]} holds {matrix.dtype} {matrix.shape}; expected a float matrix [items, dim]."
        )
    if matrix.shape[0] != n_items:
        raise UserError(
            f"{paths[0]} has {matrix.shape[0]:,} rows; expected {n_items:,}, one for each line of "
            f"{item_file}."
        )
    bad = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    if bad.size:
        raise UserError(
            f"{paths[0]}, row {bad[0]} holds a NaN or an infinity; expected finite numbers "
            f"(that row is line {bad[0] + 1} of {item_file})."
        )
    return paths[0].name, matrix


def read_image_labels(folder: Path, items: dict[str, Any]) -> tuple[list[str], np.ndarray] | None:
    """Return item tokens and 0/1 label matrix uint8 [rows, labels]; None if there are no labels."""
    path = folder / "image_labels_multihot.npz"
    if not path.is_file():
        return None
    matrix = _load(path, "multihot")
    if matrix.ndim != 2 or matrix.dtype.kind not in "ub" or (matrix > 1).any():
        raise UserError(
            f"{path} holds {matrix.dtype} {matrix.shape}; expected a 0/1 matrix of unsigned "
            "integers [items, labels]."
        )
    tokens = read_item_list(folder / "image_items.txt")
    if len(tokens) != matrix.shape[0]:
        raise UserError(
            f"{folder / 'image_items.txt'} lists {len(tokens):,} items; expected "
            f"{matrix.shape[0]:,}, one for each row of {path.name}."
        )
    for number, token in enumerate(tokens, start=1):
        if token not in items:
            raise _bad(
                folder / "image_items.txt", number, f"is {token!r}", "an item of items.jsonl.gz"
            )
    return tokens, matrix.astype(np.uint8)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield numbered lines of a gzip file, without their line ends."""
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                yield number, line.rstrip("\r\n")
    except FileNotFoundError as error:
        raise UserError(
            f"{path} not found; expected a source folder with interactions.tsv.gz and "
            "items.jsonl.gz. Check --source."
        ) from error
    except (EOFError, OSError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} cannot be read to its end ({error}); expected gzip-compressed UTF-8 text. "
            "The file is probably truncated: fetch it again."
        ) from error


def _load(path: Path, key: str | None) -> np.ndarray:
    """Read an array from .npy (key None), or array ``key`` of an .npz, without unpickling."""
    expected = "an array" if key is None else f"an archive with the array {key!r}"
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            array = loaded if key is None else None
        else:
            with loaded:
                array = loaded.get(key)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({error}); expected {expected}.") from error
    if array is None:
        raise UserError(f"{path} is of another kind; expected {expected}.")
    return array


def _check_token(path: Path, number: int, token: str) -> None:
    if not is_token(token):
        raise _bad(
            path, number, f"has the token {token!r}",
            "a token without whitespace or quotes that does not read as a missing value",
        )  # fmt: skip


def _bad(path: Path, number: int, found: str, expected: str) -> UserError:
    return UserError(f"{path}, line {number} {found}; expected {expected}. Correct that line.")
