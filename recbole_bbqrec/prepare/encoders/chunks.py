"""Vectors of many inputs, in chunks that survive an interruption."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Callable, TypeVar

import numpy as np
from tqdm.auto import tqdm

from recbole_bbqrec.atomic import atomic_path
from recbole_bbqrec.runtime import bar_is_hidden

Input = TypeVar("Input")


def encode_in_chunks(
    inputs: Sequence[Input],
    identity: Sequence[str],
    encode: Callable[[Sequence[Input]], np.ndarray],
    kept: Path | None,
    rows: int,
    what: str,
) -> np.ndarray:
    """Return the vectors of all inputs, float16 [n_inputs, width].

    Args:
        inputs: at least one.
        identity: texts that change with the encoder or an input.
        encode: makes the vectors of some inputs, float16.
        kept: folder for finished chunks. Those of an earlier call with the same identity are read
            instead of computed; all are removed when the last one is done.
        rows: inputs of a chunk; an interruption loses at most one chunk.
        what: name of the inputs, for the progress bar.
    """
    key = hashlib.sha256(json.dumps(list(identity)).encode()).hexdigest()[:16]
    chunks = []
    with tqdm(total=len(inputs), desc=what, unit="item", disable=bar_is_hidden()) as bar:
        for number, start in enumerate(range(0, len(inputs), rows)):
            part = inputs[start : start + rows]
            path = None if kept is None else kept / f"{key}-{number:05d}.npy"
            chunk = _read_chunk(path, len(part))
            if chunk is None:
                chunk = encode(part)
                if path is not None:
                    with atomic_path(path) as temporary, open(temporary, "wb") as file:
                        np.save(file, chunk, allow_pickle=False)
            chunks.append(chunk)
            bar.update(len(part))
    if kept is not None:
        shutil.rmtree(kept, ignore_errors=True)
    return np.concatenate(chunks)


def files_of(folder: Path) -> list[tuple[str, int, int]]:
    """Return name, size and mtime of a model folder's files; empty for a name on the hub."""
    if not folder.is_dir():
        return []
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(str(p.relative_to(folder)), p.stat().st_size, p.stat().st_mtime_ns) for p in paths]


def _read_chunk(path: Path | None, rows: int) -> np.ndarray | None:
    """Return a finished chunk; None if it is absent or not as expected."""
    if path is None or not path.is_file():
        return None
    try:
        chunk = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if not isinstance(chunk, np.ndarray) or chunk.dtype != np.float16 or chunk.ndim != 2:
        return None
    return chunk if len(chunk) == rows and np.isfinite(chunk).all() else None
