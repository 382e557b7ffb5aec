"""A run's own data with the features and titles of new items."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from recbole_bbqrec.data.catalogue import ADDED
from recbole_bbqrec.data.features import open_matrix, read_item_list
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.prepare.atomic_files import ITEM_TABLE, describe_matrix, write_lines
from recbole_bbqrec.prepare.item_table import extend_item_table
from recbole_bbqrec.prepare.written_files import read_entries
from recbole_bbqrec.upkeep.new_items import NewItems

_BEYOND = 10  # times as far from the mean as any item of the run: no value, but rounding
_ROUNDING = 1e-3  # of the widest column: what varies less may be rounding
_MOST = 0.5  # share of the other columns; where more are beyond, the vectors are another encoder's


def write_extended(source: Path, target: Path, name: str, new: NewItems) -> None:
    """Write the data set ``name`` in ``source`` and the new items to the folder ``target``.

    Interactions and every other file that does not change are hard links, or copies where the file
    system has none.

    Raises:
        UserError: a feature exceeds the range of the stored numbers, or the features look like
            those of another encoder.
    """
    target.mkdir(parents=True)
    entries = read_entries(source / f"{name}.features.yaml")
    for modality, (places, rows) in new.features.items():
        described = _modality(source, target, name, modality, [new.tokens[p] for p in places], rows)
        if modality in entries:
            entries[modality] = {**entries[modality], **described}
    if entries:
        text = yaml.safe_dump(entries, sort_keys=False, allow_unicode=True)
        (target / f"{name}.features.yaml").write_text(text, encoding="utf-8")
    titles = source / f"{name}.titles.tsv"
    if titles.is_file():
        lines = titles.read_text(encoding="utf-8").splitlines()
        lines += [f"{token}\t{new.titles.get(token, '')}" for token in new.tokens]
        write_lines(target / titles.name, lines)
    columns = source / f"{name}.{ITEM_TABLE}"
    if new.table is not None and columns.is_file():
        extend_item_table(columns, *new.table, new.tokens, target / name)
    earlier = source / f"{name}.{ADDED}"
    known = read_item_list(earlier) if earlier.is_file() else []
    write_lines(target / earlier.name, [*known, *new.tokens])
    for path in source.iterdir():
        if not (target / path.name).exists():
            link_or_copy(path, target / path.name)


def _modality(
    source: Path, target: Path, name: str, modality: str, tokens: list[str], rows: np.ndarray
) -> dict[str, Any]:
    """Write one modality with the ``rows`` of ``tokens`` at its end; return what changed."""
    matrix, items = (Path(f"{name}.{modality}.{kind}") for kind in ("npy", "items.txt"))
    old = open_matrix(source / matrix)
    stored = np.float16 if old.dtype.itemsize == 2 else np.float32
    with np.errstate(over="ignore"):
        added = _within_reach(rows, old, modality).astype(stored)
    if not np.isfinite(added).all():
        raise UserError(
            f"A {modality} feature of a new item exceeds the range of {np.dtype(stored)}, in which "
            "the run's are stored. Encode the items as the run's were encoded."
        )
    known = read_item_list(source / items)
    new = [row for row, token in enumerate(tokens) if token not in set(known)]
    np.save(target / matrix, np.concatenate([old.astype(stored, copy=False), added[new]]))
    write_lines(target / items, [*known, *(tokens[row] for row in new)])
    return describe_matrix(target / matrix, len(known) + len(new), int(old.shape[1]))


def _within_reach(rows: np.ndarray, old: np.ndarray, modality: str) -> np.ndarray:
    """Return new ``rows`` [n, dim] with the mean of ``old`` [N, dim] in columns of mere rounding.

    An SVD may have columns in which the run's items differ by rounding alone, which scaling brings
    to the size of the others. The rounding of new items is another, and would then be thousands of
    deviations. Such a column has a new item ten times as far from the mean as any old one.
    """
    if not len(old) or not len(rows):
        return rows
    mean = np.mean(old, axis=0, dtype=np.float64)
    low, high = (np.asarray(edge, np.float64) for edge in (old.min(axis=0), old.max(axis=0)))
    farthest = np.maximum(high - mean, mean - low)
    beyond = (np.abs(rows - mean) > _BEYOND * farthest).any(axis=0) & (farthest > 0)
    _check_encoder(beyond, farthest > _ROUNDING * farthest.max(), modality)
    return np.where(beyond, mean, rows)


def _check_encoder(beyond: np.ndarray, varies: np.ndarray, modality: str) -> None:
    """Warn where columns that vary among the run's items are set to the mean; refuse many.

    Both are bool [dim].
    """
    changed, total = int((beyond & varies).sum()), int(varies.sum())
    if not changed:
        return
    like = "the vectors look like those of another encoder"
    far = f"a new item lies over {_BEYOND} times as far from the mean as any item of the run"
    if changed > _MOST * total:
        raise UserError(
            f"In {changed} of {total} columns of `{modality}` {far}: {like}. Encode the new items "
            "with the encoder of the run's, and give vectors of the same scale."
        )
    getLogger().warning(
        f"{changed} of {total} columns of `{modality}` are set to the mean for all new items: in "
        f"them {far}. If there are many, {like}."
    )


def link_or_copy(path: Path, target: Path) -> None:
    """Make ``target`` another name of the file ``path``, or a copy without hard links."""
    with suppress(OSError):
        os.link(path, target)
        return
    shutil.copyfile(path, target)
