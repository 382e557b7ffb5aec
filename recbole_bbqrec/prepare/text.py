"""Item text, and its encoding as vectors.

Two kinds of encoder: ``tfidf`` needs nothing beyond scikit-learn and no download; the other is a
sentence-transformers model (:mod:`recbole_bbqrec.prepare.encoders.sentences`; the paper uses
sentence-T5).
"""

from __future__ import annotations

import hashlib
import html
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recbole_bbqrec.atomic import atomic_path
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.prepare.encoders.sentences import SentenceEncoder, open_encoder
from recbole_bbqrec.reading import read_arrays, reading

MAX_CHARACTERS = 2000  # of one item's text; sentence encoders read a few hundred tokens at most
#: Fields that the paper encodes.
PAPER_FIELDS = ("title", "description")
#: All fields of a source; brand and categories help where titles and descriptions are scarce.
ALL_FIELDS = ("title", "description", "brand", "categories")
# Above this many different words and word pairs, the rarest are dropped.
_MAX_TERMS = 100_000
# A tag starts with a letter, a slash or an exclamation mark: "size < 5" is not one.
_TAG = re.compile(r"<[a-zA-Z/!][^>]*>")


def clean(text: str) -> str:
    """Unescape HTML, strip tags, fold whitespace, drop characters that UTF-8 cannot encode."""
    folded = " ".join(_TAG.sub(" ", html.unescape(text)).split())
    return folded.encode("utf-8", errors="ignore").decode("utf-8")


def item_text(item: Mapping[str, Any], fields: Sequence[str] = ALL_FIELDS) -> str:
    """Return the text of one item: its non-empty ``fields``, joined by ". ".

    A field may be a string, a list of strings or nested lists of them; ``categories`` are joined
    by commas. The result is empty when the item has none of the fields.
    """
    parts = []
    for key in fields:
        separator = ", " if key == "categories" else " "
        parts.append(clean(separator.join(_strings(item.get(key)))))
    return ". ".join(part for part in parts if part)[:MAX_CHARACTERS].rstrip()


def recipe(fields: Sequence[str]) -> str:
    """Describe in words how :func:`item_text` makes a text of ``fields``."""
    return (
        f"{', '.join(fields)} joined by '. '; HTML unescaped, tags stripped, whitespace folded, "
        f"at most {MAX_CHARACTERS} characters"
    )


def texts_sha256(tokens: Sequence[str], texts: Sequence[str]) -> str:
    """Return the SHA-256 of the items' tokens and texts, 64 hex characters."""
    return hashlib.sha256(json.dumps([list(tokens), list(texts)]).encode()).hexdigest()


def encode_texts(
    texts: Sequence[str],
    encoder: str | SentenceEncoder = "tfidf",
    dim: int = 256,
    seed: int = 2025,
    batch_size: int = 64,
    kept: Path | None = None,
) -> np.ndarray:
    """Encode texts as rows of unit length.

    Args:
        texts: one text per item.
        encoder: ``tfidf``, or a sentence-transformers model, its name or its folder.
        dim: width of the ``tfidf`` vectors; fewer when the texts do not span that many.
        seed: seed of the truncated SVD behind ``tfidf``.
        batch_size: texts per step of a sentence-transformers model.
        kept: folder for such a model's finished chunks, which outlive an interruption.

    Returns:
        float16 [n_texts, width]. A row is zero when ``tfidf`` knows no word of the text.

    Raises:
        UserError: no text at all, sentence-transformers is missing, or its model cannot be
            loaded.
    """
    if not any(texts):
        raise UserError("None of the items has any text; expected a title, brand or categories.")
    if encoder == "tfidf":
        return fit_tfidf(texts, dim, seed)[0]
    model = open_encoder(encoder) if isinstance(encoder, str) else encoder
    return model.encode(texts, kept, batch_size)


def encode_labels(counts: np.ndarray, dim: int = 256, seed: int = 2025) -> np.ndarray:
    """Reduce TF-IDF weights of a 0/1 label matrix [n_items, n_labels] to at most ``dim`` columns.

    Raw labels are a poor input here: most of them occur on a few items only, and standardising
    such a column turns each occurrence into an outlier. Returns float16 [n_items, width], rows
    of unit length; an item without labels has a zero row.
    """
    from scipy import sparse
    from sklearn.feature_extraction.text import TfidfTransformer

    weighted = TfidfTransformer().fit_transform(sparse.csr_matrix(counts, dtype=np.float64))
    return _reduce(weighted, dim, seed)[0]


@dataclass(frozen=True)
class TextRecipe:
    """Recipe of a data set's text vectors, by which texts of new items are encoded alike.

    ``columns`` of the table of items make the text. ``encoder`` names the encoder; only for TF-IDF
    are there ``terms``, their ``idf`` float32 [n_terms], and ``components`` float16
    [width, n_terms] of the SVD.
    """

    encoder: str
    columns: tuple[str, ...] = ()
    terms: tuple[str, ...] = ()
    idf: np.ndarray | None = None
    components: np.ndarray | None = None

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Encode ``texts`` by TF-IDF as float16 [n_texts, width], rows of unit length or zero."""
        if self.idf is None or self.components is None:
            raise ValueError(f"{self.encoder} is no TF-IDF encoder")
        from sklearn.preprocessing import normalize

        vectorizer = _vectorizer(vocabulary={term: i for i, term in enumerate(self.terms)})
        vectorizer.idf_ = self.idf
        projected = vectorizer.transform(texts) @ self.components.astype(np.float32).T
        return normalize(projected).astype(np.float16)

    def save(self, path: Path) -> None:
        """Write arrays without pickle; the texts are UTF-8 with a line for each column or term."""
        arrays = {"encoder": _bytes([self.encoder]), "columns": _bytes(self.columns)}
        if self.idf is not None and self.components is not None:
            arrays.update(terms=_bytes(self.terms), idf=self.idf, components=self.components)
        with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for name, array in arrays.items():
                entry = zipfile.ZipInfo(f"{name}.npy")  # without the present time: same bytes
                with archive.open(entry, "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, array, allow_pickle=False)

    @classmethod
    def load(cls, path: Path) -> TextRecipe:
        """Read a file of :meth:`save`.

        Raises:
            UserError: the file is damaged.
        """
        kind, remedy = "the text encoder that prepare stored", "Restore it, or give vectors."
        arrays = read_arrays(path, kind, remedy)
        with reading(path, kind, remedy):
            lines = {
                name: tuple(arrays[name].tobytes().decode("utf-8").split("\n"))
                for name in ("encoder", "columns", "terms")
                if name in arrays
            }
            idf, components = arrays.get("idf"), arrays.get("components")
            terms = lines.get("terms", ())
            if components is not None and components.shape[1:] != (len(terms),):
                raise ValueError(f"{len(terms)} terms, components {components.shape}")
            return cls(lines["encoder"][0], lines["columns"], terms, idf, components)


def _bytes(lines: Sequence[str]) -> np.ndarray:
    return np.frombuffer("\n".join(lines).encode(), dtype=np.uint8)


def _vectorizer(**settings: Any) -> Any:
    """Return scikit-learn's ``TfidfVectorizer``, which takes a second to import."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, dtype=np.float32, **settings)


def fit_tfidf(
    texts: Sequence[str], dim: int = 256, seed: int = 2025
) -> tuple[np.ndarray, TextRecipe]:
    """Fit TF-IDF and the SVD to texts; return their vectors float16 [n_texts, width], and both."""
    vectorizer = _vectorizer(max_features=_MAX_TERMS)
    try:
        weighted = vectorizer.fit_transform(texts)  # sparse [n_texts, n_terms]
    except ValueError as error:
        raise UserError(f"The item texts hold no words ({error}); expected titles.") from error
    vectors, components = _reduce(weighted, dim, seed)
    terms = tuple(vectorizer.get_feature_names_out())
    idf = vectorizer.idf_.astype(np.float32)
    return vectors, TextRecipe("tfidf", (), terms, idf, components.astype(np.float16))


def _reduce(weighted: Any, dim: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.preprocessing import normalize

    width = min(dim, *weighted.shape)
    svd = TruncatedSVD(n_components=width, n_iter=4, random_state=seed)
    # The reduction shortens rows by different factors.
    return normalize(svd.fit_transform(weighted)).astype(np.float16), svd.components_


def _strings(value: object) -> list[str]:
    """Return all strings in a string, a list or nested lists, in order; skip other values."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, (list, tuple)):
        return [text for part in value for text in _strings(part)]
    return []
