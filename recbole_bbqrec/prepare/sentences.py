"""Sentence vectors by a sentence-transformers model, in chunks that survive an interruption."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from recbole_bbqrec.atomic import atomic_path
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.runtime import bar_is_hidden

#: The paper's text encoder.
SENTENCE_T5 = "sentence-transformers/sentence-t5-base"
_CHUNK = 1024  # texts per file; an interruption loses at most one file


class SentenceEncoder:
    """A loaded model; made by :func:`open_encoder`.

    Attributes:
        name: a name on the Hugging Face hub, or a folder.
        label: what results call it: the name, or a folder's last part, not its place on a machine.
        identity: text that changes with the model: its name and, for a folder, its files.
    """

    def __init__(self, name: str, model: Any) -> None:
        self.name = name
        self.label = Path(name).resolve().name if Path(name).is_dir() else name
        self.identity = json.dumps([name, _files(Path(name))])
        self._model = model

    def encode(
        self, texts: Sequence[str], kept: Path | None = None, batch_size: int = 64
    ) -> np.ndarray:
        """Return vectors of unit length, float16 [n_texts, width].

        Args:
            texts: one text per item.
            kept: folder for finished chunks. Those of an earlier call with the same model and
                texts are read instead of computed; all are removed when the last one is done.
            batch_size: texts per step of the model.

        Raises:
            UserError: the model gives numbers that are not finite.
        """
        key = hashlib.sha256(json.dumps([self.identity, *texts]).encode()).hexdigest()[:16]
        chunks = []
        with tqdm(total=len(texts), desc="text", unit="item", disable=bar_is_hidden()) as bar:
            for number, start in enumerate(range(0, len(texts), _CHUNK)):
                part = list(texts[start : start + _CHUNK])
                path = None if kept is None else kept / f"{key}-{number:05d}.npy"
                chunk = _read_chunk(path, len(part))
                if chunk is None:
                    chunk = self._vectors(part, batch_size)
                    if path is not None:
                        with atomic_path(path) as temporary, open(temporary, "wb") as file:
                            np.save(file, chunk, allow_pickle=False)
                chunks.append(chunk)
                bar.update(len(part))
        if kept is not None:
            shutil.rmtree(kept, ignore_errors=True)
        return np.concatenate(chunks)

    def _vectors(self, texts: list[str], batch_size: int) -> np.ndarray:
        vectors = self._model.encode(
            texts,
            batch_size=batch_size,
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        vectors = np.asarray(vectors, dtype=np.float16)
        bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if bad.size:
            raise UserError(
                f"Text encoder {self.name!r} gives numbers that are not finite for the text "
                f"{texts[bad[0]][:60]!r}. Use another encoder."
            )
        return vectors


def open_encoder(name: str) -> SentenceEncoder:
    """Load a sentence-transformers model, on the GPU if there is one.

    A model that is in the cache is loaded without asking the network.

    Raises:
        UserError: sentence-transformers is not installed, or the model cannot be loaded.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise UserError(
            f"Text encoder {name!r} needs sentence-transformers, which is not installed. Run "
            "pip install recbole_bbqrec[text], or use --text_encoder tfidf."
        ) from error
    try:
        try:
            model = SentenceTransformer(name, local_files_only=True)
        except Exception:
            model = SentenceTransformer(name)
    except Exception as error:  # its dependencies raise many kinds
        reason = " ".join(str(error).split())
        raise UserError(
            f"Text encoder {name!r} cannot be loaded ({reason}); expected tfidf, precomputed, or "
            "a sentence-transformers model name or folder. Without a network, fetch the model on "
            "a machine that has one (hf download NAME --local-dir DIR), and give "
            "--text_encoder DIR; or use --text_encoder tfidf."
        ) from error
    return SentenceEncoder(name, model)


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


def _files(folder: Path) -> list[tuple[str, int, int]]:
    """Return name, size and mtime of a model folder's files; empty for a name on the hub."""
    if not folder.is_dir():
        return []
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(str(p.relative_to(folder)), p.stat().st_size, p.stat().st_mtime_ns) for p in paths]
