"""One modality's feature matrix: read, check and align with the item vocabulary.

A modality lives beside the interactions as two files, and optionally a third:

* ``<Dataset>.<modality>.npy``: matrix [rows, dim], float16 or float32;
* ``<Dataset>.<modality>.items.txt``: the raw item token of each row, one per line;
* ``<Dataset>.features.yaml``: encoder, dimension, recipe and checksums of each modality.

Rows are matched to items by raw token, never by position, after the framework has fixed its
internal ids. The item vocabulary is therefore the same with and without features.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recbole_bbqrec.atomic import sha256_of
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.reading import open_array, read_text, read_yaml_file, reading

if TYPE_CHECKING:  # torch takes seconds to load, and `prepare` does without
    import torch

logger = logging.getLogger(__name__)

_CHUNK_ROWS = 4096  # bounds the memory of the finiteness check on a memory-mapped matrix


@dataclass(frozen=True)
class ModalityFeatures:
    """The features of one modality, aligned with internal item ids.

    Attributes:
        name: the modality, as configured.
        matrix: float16 or float32 [n_items, dim], the dtype of the file; row 0 ([PAD]) and the
            rows of items without this modality are zero.
        present: bool [n_items], true if the item has this modality.
        fingerprint: 16 hex characters, SHA-256 over the matrix file and the item list.
        metadata: entry of this modality in ``<Dataset>.features.yaml``; empty without it.
    """

    name: str
    matrix: torch.Tensor
    present: torch.Tensor
    fingerprint: str
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def dim(self) -> int:
        """Width of one item's feature vector."""
        return int(self.matrix.shape[1])


def load_modality(
    directory: str | os.PathLike[str],
    dataset: str,
    modality: str,
    item_tokens: list[str],
    expected_dim: int | None = None,
) -> ModalityFeatures:
    """Load one modality of ``dataset`` for the given item vocabulary.

    Args:
        directory: the data set's folder.
        dataset: the data set's name, the prefix of its files.
        modality: the modality's name, for example ``text``.
        item_tokens: raw token of each internal item id; index 0 is ``[PAD]``.
        expected_dim: the feature width required, or None for any.

    Raises:
        UserError: a file is missing or unreadable, or differs from its checksum; rows and item
            list do not fit, a token is blank or repeated, a value is not finite, the width or
            dtype is not as expected, or no row belongs to any item of the vocabulary.
    """
    folder = Path(directory)
    matrix_path = folder / f"{dataset}.{modality}.npy"
    items_path = folder / f"{dataset}.{modality}.items.txt"
    require_files(folder, dataset, modality, (matrix_path, items_path))
    metadata = _load_metadata(folder / f"{dataset}.features.yaml", modality)
    rows = open_matrix(matrix_path)
    tokens = read_item_list(items_path)
    if len(tokens) != rows.shape[0]:
        raise UserError(
            f"{items_path} lists {len(tokens):,} items but {matrix_path.name} has "
            f"{rows.shape[0]:,} rows; expected one line per row. Make both files again together."
        )
    _check_dim(matrix_path, rows.shape[1], expected_dim, metadata)
    _check_finite(matrix_path, rows, tokens)
    recorded = ((matrix_path, "sha256"), (items_path, "items_sha256"))
    digests = [_digest(path, key, metadata) for path, key in recorded]

    row_of = {token: row for row, token in enumerate(tokens)}
    # RecBole keeps the blanks around a token of a hand-made .inter file.
    names = (token.strip() for token in item_tokens[1:])
    source = np.array([row_of.get(name, -1) for name in names], dtype=np.int64)
    ids = np.flatnonzero(source >= 0) + 1  # internal ids that have a row
    if ids.size == 0:
        raise UserError(
            f"None of the {len(tokens):,} items in {items_path} occurs in data set {dataset} "
            f"(first line: {tokens[0]!r}; the data set's first item: {item_tokens[1]!r}). "
            "Expected raw item tokens as in the .inter file, not internal ids."
        )
    stored = np.float16 if rows.dtype == np.float16 else np.float32
    matrix = np.zeros((len(item_tokens), rows.shape[1]), dtype=stored)  # [n_items, dim]
    matrix[ids] = rows[source[ids - 1]]
    import torch

    present = torch.zeros(len(item_tokens), dtype=torch.bool)  # [n_items]
    present[torch.from_numpy(ids)] = True
    logger.info("%s: %s / %s items", modality, f"{ids.size:,}", f"{len(item_tokens) - 1:,}")
    return ModalityFeatures(
        name=modality,
        matrix=torch.from_numpy(matrix),
        present=present,
        fingerprint=_fingerprint(digests),
        metadata=metadata,
    )


def read_item_list(path: Path) -> list[str]:
    """Read one raw item token per line of UTF-8, with or without a byte order mark.

    Blanks around a token are ignored, as in the tables of interactions and items.

    Raises:
        UserError: the file is unreadable or empty, or a line is blank or repeated.
    """
    kind, remedy = "one raw item token per line", "Restore the file, or make it again."
    lines = read_text(path, kind, remedy, encoding="utf-8-sig").split("\n")
    if lines[-1] == "":
        lines.pop()
    tokens = [line.strip() for line in lines]
    if not tokens:
        raise UserError(f"{path} is empty; expected one raw item token per line.")
    first_line: dict[str, int] = {}
    for number, token in enumerate(tokens, start=1):
        if not token:
            raise UserError(f"{path}, line {number} is blank; expected a raw item token.")
        if token in first_line:
            raise UserError(
                f"{path}, line {number}: item {token!r} already stands on line "
                f"{first_line[token]}; expected every item once. Remove one of the two rows."
            )
        first_line[token] = number
    return tokens


def require_files(folder: Path, dataset: str, modality: str, paths: tuple[Path, ...]) -> None:
    """Raise a UserError if a file of a modality is not in the data set's folder."""
    missing = [path.name for path in paths if not path.is_file()]
    if not missing:
        return
    root = "" if folder.parent == Path("dataset") else f" --data_path={folder.parent}"
    present = sorted(path.name for path in folder.glob(f"{dataset}.*")) if folder.is_dir() else []
    raise UserError(
        f"Modality {modality!r} of data set {dataset}: {' and '.join(missing)} not found in "
        f"{folder} (files there: {', '.join(present) or 'none'}). Write them (one row an "
        "item; the raw item tokens, one a line), or make them beside the interactions: `python -m "
        f"recbole_bbqrec prepare {dataset}{root} --features_only --features={modality}=FILE.npy,"
        f"ITEMS.txt`, or for text --items=FILE; or drop {modality!r} from `modalities`."
    )


def open_matrix(path: Path) -> np.ndarray:
    """Memory-map a matrix [rows, dim]; float64 is accepted and narrowed when rows are copied.

    Raises:
        UserError: the file is unreadable, or is not a matrix of floats.
    """
    kind = "a NumPy matrix, float16 or float32 [rows, dim], written by numpy.save"
    rows = open_array(path, kind, "Restore the file, or encode the items again.")
    if rows.ndim != 2 or 0 in rows.shape:
        raise UserError(f"{path} holds {rows.shape}; expected a matrix [rows, dim], neither zero.")
    if rows.dtype.kind != "f" or rows.dtype.itemsize > 8:
        raise UserError(
            f"{path} has dtype {rows.dtype}; expected float16 or float32. Convert it with "
            "matrix.astype(numpy.float32)."
        )
    if rows.dtype.itemsize == 8:
        logger.warning("%s is float64; it is converted to float32.", path.name)
    return rows


def _load_metadata(path: Path, modality: str) -> dict[str, Any]:
    if not path.is_file():
        return {}
    kind, remedy = "YAML, a mapping from modality names to mappings", "Correct or remove it."
    content = read_yaml_file(path, kind, remedy)
    entry = content.get(modality, {}) if isinstance(content, dict) else None
    if not isinstance(entry, dict):
        raise UserError(f"{path}: expected a mapping from modality names to mappings. {remedy}")
    return entry


def _digest(path: Path, key: str, metadata: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a file; refuse one that differs from what ``features.yaml`` says."""
    with reading(path, "a file of features", "Restore it, or make it again."):
        digest = sha256_of(path)
    if key in metadata and metadata[key] != digest:
        raise UserError(
            f"{path} has the SHA-256 {digest[:16]}..., but the features.yaml beside it says "
            f"`{key}: {str(metadata[key])[:16]}...`: the file is damaged, or was replaced. Restore "
            f"it; or, if it is meant, put the new checksum into features.yaml or remove `{key}` "
            "there."
        )
    return digest


def _check_dim(path: Path, dim: int, expected: int | None, metadata: dict[str, Any]) -> None:
    if expected is not None and dim != expected:
        raise UserError(
            f"{path} has {dim} columns; expected {expected}. Encode the items again or change "
            "the expected dimension."
        )
    described = metadata.get("dimension", dim)
    if described != dim:
        raise UserError(
            f"{path} has {dim} columns, but the features.yaml beside it says dimension: "
            f"{described}. One of the two is stale: encode the items again or correct the YAML."
        )


def _check_finite(path: Path, rows: np.ndarray, tokens: list[str]) -> None:
    for start in range(0, rows.shape[0], _CHUNK_ROWS):
        # The check below reports an overflow to infinity: no warning needed.
        with np.errstate(over="ignore"):
            chunk = rows[start : start + _CHUNK_ROWS]
            chunk = chunk.astype(np.float32) if chunk.dtype.itemsize == 8 else chunk
        bad = np.flatnonzero(~np.isfinite(chunk).all(axis=1))
        if bad.size:
            row = start + int(bad[0])
            raise UserError(
                f"{path}, row {row} (item {tokens[row]!r}) holds a NaN or an infinity; expected "
                "finite float32 numbers. Encode that item again, or leave out its row."
            )


def _fingerprint(digests: Iterable[str]) -> str:
    """Hash the digests of the files, so that bytes cannot move between files unnoticed."""
    joined = hashlib.sha256(b"".join(map(bytes.fromhex, digests)))
    return joined.hexdigest()[:16]
