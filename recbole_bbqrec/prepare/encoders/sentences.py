"""Sentence vectors by a sentence-transformers model, in chunks that survive an interruption."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recbole_bbqrec.errors import UserError, pip_install
from recbole_bbqrec.prepare.encoders.chunks import encode_in_chunks, files_of

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
        self.identity = json.dumps([name, files_of(Path(name))])
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
        return encode_in_chunks(
            texts,
            [self.identity, *texts],
            lambda part: self._vectors(list(part), batch_size),
            kept,
            _CHUNK,
            "text",
        )

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
            f"{pip_install('text')}, or use --text_encoder tfidf."
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
