"""Feature matrices from the user's files, aligned with the catalogue and written in blocks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recbole_bbqrec.data.features import open_matrix, read_item_list
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.prepare.atomic_files import describe_matrix, write_lines
from recbole_bbqrec.prepare.tables.ledger import Ledger

_BLOCK_ROWS = 4096


@dataclass(frozen=True)
class FeatureFile:
    """``MOD=FILE.npy[,ITEMS.txt]``: a modality, its matrix, and the item of each row."""

    modality: str
    matrix: Path
    items: Path | None

    def paths(self) -> tuple[Path, ...]:
        """Return the matrix, and the list of items if there is one."""
        return (self.matrix,) if self.items is None else (self.matrix, self.items)

    @classmethod
    def parse(cls, text: str) -> FeatureFile:
        """Parse the command line's form.

        Raises:
            UserError: the form or the modality's name is invalid.
        """
        name, equals, files = text.partition("=")
        matrix, _, items = files.partition(",")
        if not equals or not matrix:
            raise UserError(f"--features {text!r}; expected MODALITY=FILE.npy[,ITEMS.txt].")
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name) or name in ("id", "features"):
            raise UserError(
                f"--features {text!r}: {name!r} cannot name a modality; expected letters, digits, "
                "'_' and '-', and neither 'id' nor 'features'."
            )
        return cls(name, Path(matrix), Path(items) if items else None)


def write_features(
    file: FeatureFile,
    catalogue: Mapping[str, int],
    names: Sequence[str],
    row_codes: np.ndarray | None,
    stem: Path,
    ledger: Ledger,
) -> dict[str, Any]:
    """Write the rows of the catalogue's items as ``<stem>.npy`` and ``<stem>.items.txt``.

    Rows keep their order and dtype (float64 becomes float32).

    Args:
        file: the matrix [rows, dim] and the item of each row.
        catalogue: raw token to code.
        names: raw tokens by code.
        row_codes: codes by row of the items file, for a matrix without a list of items.
        stem: path of the files without their suffix.
        ledger: takes counts of rows without an item and items without a row.

    Returns:
        The modality's entry for features.yaml.

    Raises:
        UserError: a file is unreadable, rows and items differ in number, none of the items is in
            the catalogue, or no row is left.
    """
    rows = open_matrix(file.matrix)
    codes = _codes(file, rows.shape[0], catalogue, row_codes)
    what = f"{file.modality} features"
    ledger.add(f"rows of {what} whose item has no interaction left (or is not usable)",
               int((codes < 0).sum()))  # fmt: skip
    used = np.flatnonzero(codes >= 0)
    finite, present = _check(rows, used)
    bad = np.flatnonzero(~finite)
    if bad.size:
        row = used[bad[0]]
        first = f"row {row}, item {names[codes[row]]}"
        ledger.add(f"rows of {what} with a NaN or an infinity", bad.size, first, fault=True)
    ledger.add(f"rows of {what} that are all zero", int((finite & ~present).sum()))
    kept = used[finite & present]
    if not kept.size:
        raise UserError(
            f"{file.matrix}: no row is left for an item with interactions (of {len(codes):,} rows "
            f"{len(used):,} are of such items, {bad.size:,} of these not finite, the rest zero). "
            "Expected finite numbers; make the features again."
        )
    ledger.add(f"items without {what}", len(names) - len(kept))
    matrix_path, items_path = Path(f"{stem}.npy"), Path(f"{stem}.items.txt")
    stored = np.float16 if rows.dtype.itemsize == 2 else np.float32
    # Not memory-mapped: there, a full disk would kill the process instead of raising an error.
    with open(matrix_path, "wb") as out:
        header = np.lib.format.header_data_from_array_1_0(np.empty((0, rows.shape[1]), stored))
        np.lib.format.write_array_header_1_0(out, {**header, "shape": (len(kept), rows.shape[1])})
        for begin in range(0, len(kept), _BLOCK_ROWS):
            block = rows[kept[begin : begin + _BLOCK_ROWS]].astype(stored, copy=False)
            out.write(np.ascontiguousarray(block).tobytes())
    write_lines(items_path, (names[code] for code in codes[kept]))
    return {
        "encoder": f"{file.matrix.name} (given)",
        "recipe": f"rows of {file.matrix.name}, matched by item",
        **describe_matrix(matrix_path, len(kept), int(rows.shape[1])),
    }


def _codes(
    file: FeatureFile, n_rows: int, catalogue: Mapping[str, int], row_codes: np.ndarray | None
) -> np.ndarray:
    """Return the code of each row's item, -1 where it is not in the catalogue."""
    if file.items is not None:
        tokens = read_item_list(file.items)
        codes = np.fromiter((catalogue.get(token, -1) for token in tokens), np.int64, len(tokens))
        source = str(file.items)
    elif row_codes is not None:
        codes, source = row_codes, "the items file"
    else:
        raise UserError(
            f"--features {file.modality}={file.matrix}: which item is each row of? Name a list "
            f"({file.modality}={file.matrix},ITEMS.txt, one item a line), or give --items, whose "
            "order the rows then follow, with as many fields in every row as in the header."
        )
    if len(codes) != n_rows:
        raise UserError(
            f"{file.matrix} has {n_rows:,} rows, but {source} lists {len(codes):,} items; expected "
            "one row an item, in the same order. Make both again together."
        )
    if file.items is not None and (codes < 0).all():
        raise UserError(
            f"{file.items}: none of its {len(codes):,} items has interactions left (its first: "
            f"{tokens[0]!r}; among the interactions: {next(iter(catalogue))!r}). Expected the raw "
            "item tokens of the interactions, one a line. Correct the list."
        )
    return codes


def _check(rows: np.ndarray, used: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return two masks over ``used``: rows that are finite, and rows that are not all zero."""
    finite = np.zeros(len(used), dtype=bool)
    present = np.zeros(len(used), dtype=bool)
    for begin in range(0, len(used), _BLOCK_ROWS):
        part = slice(begin, begin + _BLOCK_ROWS)
        block = rows[used[part]]
        if block.dtype.itemsize == 8:
            with np.errstate(over="ignore"):  # beyond float32: infinite in the file
                block = block.astype(np.float32)
        finite[part] = np.isfinite(block).all(axis=1)
        present[part] = block.any(axis=1)
    return finite, present
