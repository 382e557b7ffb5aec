"""Item text, and its encoding as vectors.

Two encoders: ``tfidf`` needs nothing beyond scikit-learn and no download; any other name is
loaded as a sentence-transformers model (the paper uses sentence-T5).
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfTransformer, TfidfVectorizer
from sklearn.preprocessing import normalize

from recbole_bbqrec.errors import UserError

MAX_CHARACTERS = 2000  # of one item's text; sentence encoders read a few hundred tokens at most
RECIPE = (
    "title, description, brand, categories joined by '. '; HTML unescaped, tags stripped, "
    f"whitespace folded, at most {MAX_CHARACTERS} characters"
)
# Above this many different words and word pairs, the rarest are dropped.
_MAX_TERMS = 100_000
# A tag starts with a letter, a slash or an exclamation mark: "size < 5" is not one.
_TAG = re.compile(r"<[a-zA-Z/!][^>]*>")


def clean(text: str) -> str:
    """Unescape HTML, strip tags, fold whitespace."""
    return " ".join(_TAG.sub(" ", html.unescape(text)).split())


def item_text(item: Mapping[str, Any]) -> str:
    """The text of one item: title, description, brand and categories, those it has.

    ``description`` may be a string or a list of strings; ``categories`` a list of strings or of
    lists of them. The result is empty when the item has none of the four.
    """
    parts = [clean(" ".join(_strings(item.get(key)))) for key in ("title", "description", "brand")]
    parts.append(clean(", ".join(_strings(item.get("categories")))))
    return ". ".join(part for part in parts if part)[:MAX_CHARACTERS].rstrip()


def encode_texts(
    texts: Sequence[str],
    encoder: str = "tfidf",
    dim: int = 256,
    seed: int = 2025,
    batch_size: int = 64,
) -> np.ndarray:
    """Encode texts as rows of unit length.

    Args:
        texts: one text per item.
        encoder: ``tfidf``, or a sentence-transformers model name or folder.
        dim: width of the ``tfidf`` vectors; fewer when the texts do not span that many.
        seed: of the truncated SVD behind ``tfidf``.
        batch_size: texts per step of a sentence-transformers model.

    Returns:
        float16 [n_texts, width]. A row is zero when ``tfidf`` knows no word of the text.

    Raises:
        UserError: no text at all, sentence-transformers is missing, or its model cannot be
            loaded.
    """
    if not any(texts):
        raise UserError("None of the items has any text; expected a title, brand or categories.")
    if encoder == "tfidf":
        return _tfidf(texts, dim, seed)
    return _sentence_vectors(texts, encoder, batch_size)


def encode_labels(counts: np.ndarray, dim: int = 256, seed: int = 2025) -> np.ndarray:
    """TF-IDF weights of a binary label matrix [n_items, n_labels], reduced to at most ``dim``.

    Raw labels are a poor input here: most of them occur on a few items only, and standardising
    such a column turns each occurrence into an outlier. Returns float16 [n_items, width], rows
    of unit length; an item without labels has a zero row.
    """
    weighted = TfidfTransformer().fit_transform(sparse.csr_matrix(counts, dtype=np.float64))
    return _reduce(weighted, dim, seed)


def _tfidf(texts: Sequence[str], dim: int, seed: int) -> np.ndarray:
    vectorizer = TfidfVectorizer(
        ngram_range=(1, 2), sublinear_tf=True, max_features=_MAX_TERMS, dtype=np.float32
    )
    try:
        weighted = vectorizer.fit_transform(texts)  # sparse [n_texts, n_terms]
    except ValueError as error:
        raise UserError(f"The item texts hold no words ({error}); expected titles.") from error
    return _reduce(weighted, dim, seed)


def _reduce(weighted: sparse.spmatrix, dim: int, seed: int) -> np.ndarray:
    width = min(dim, *weighted.shape)
    svd = TruncatedSVD(n_components=width, n_iter=4, random_state=seed)
    # Reduced rows keep only part of their length, a different part for every item.
    return normalize(svd.fit_transform(weighted)).astype(np.float16)


def _sentence_vectors(texts: Sequence[str], encoder: str, batch_size: int) -> np.ndarray:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise UserError(
            f"Text encoder {encoder!r} needs sentence-transformers, which is not installed. Run "
            "pip install recbole_bbqrec[text], or use --text-encoder tfidf."
        ) from error
    try:
        model = SentenceTransformer(encoder)
    except (OSError, ValueError) as error:
        raise UserError(
            f"Text encoder {encoder!r} cannot be loaded ({error}); expected tfidf, precomputed, "
            "or a sentence-transformers model name or folder."
        ) from error
    vectors = model.encode(
        list(texts), batch_size=batch_size, normalize_embeddings=True, convert_to_numpy=True
    )
    return np.asarray(vectors, dtype=np.float16)


def _strings(value: object) -> list[str]:
    """All strings in a string, a list of strings or nested lists, in order; others are skipped."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, (list, tuple)):
        return [text for part in value for text in _strings(part)]
    return []
