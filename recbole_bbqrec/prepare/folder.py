"""Prepare a data set from a folder in the layout of :mod:`recbole_bbqrec.prepare.source_files`.

Image vectors are made of the folder's image labels, if it has any.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.prepare import atomic_files as prepared
from recbole_bbqrec.prepare import source_files as src
from recbole_bbqrec.prepare.encoders.sentences import SentenceEncoder, open_encoder
from recbole_bbqrec.prepare.interactions import Interaction
from recbole_bbqrec.prepare.table1 import PreparedReport
from recbole_bbqrec.prepare.text import (
    ALL_FIELDS,
    encode_labels,
    encode_texts,
    item_text,
    recipe,
    texts_sha256,
)

PRECOMPUTED = "precomputed"
TFIDF = "tfidf"
TFIDF_LABEL = "TF-IDF of words and word pairs, truncated SVD (not the paper's sentence-T5)"
_LABELS = {
    "text_minilm.npy": "all-MiniLM-L6-v2 (not the paper's sentence-T5)",
    TFIDF: TFIDF_LABEL,
}


def prepare_from_source(
    name: str,
    source: str | os.PathLike[str],
    output_root: str | os.PathLike[str],
    text_encoder: str = TFIDF,
    force: bool = False,
) -> PreparedReport:
    """Prepare data set ``name`` from the folder ``source`` into ``output_root/name``.

    Args:
        name: the data set's name; letters, digits, ``_`` and ``-``.
        source: folder with ``interactions.tsv.gz`` and ``items.jsonl.gz``.
        output_root: RecBole's ``data_path``.
        text_encoder: ``tfidf``, ``precomputed`` (the source's ``text_*.npy``), or a
            sentence-transformers model.
        force: replace an existing folder and the features that `prepare` made. Other files in it,
            such as your own features, are kept.

    Raises:
        UserError: the name, a source file or the encoder is invalid, the disk is full, or the
            target exists and ``force`` is not set. The target is then unchanged.
    """
    target = prepared.check_target(name, output_root, force, modalities=("text",))
    encoder = open_text_encoder(text_encoder)
    folder = Path(source)
    items = src.read_items(folder)
    events = src.read_interactions(folder, items)
    times = src.read_times(folder, events)
    used = {event.item for event in events}
    catalogue = {token: item for token, item in items.items() if token in used}

    with prepared.rebuilding(target) as work:
        prepared.write_interactions(work / f"{name}.inter", events, times)
        prepared.write_titles(work / f"{name}.titles.tsv", catalogue)
        if encoder == PRECOMPUTED:
            text = _precomputed_text(work, name, folder, items, catalogue)
        else:
            text = write_text(work, target.path, name, catalogue, encoder, ALL_FIELDS)
        image = _prepare_image(work, name, folder, items, catalogue)
        described = {"text": text, **({"image": image} if image else {})}
        former = prepared.write_description(target, work, described)
    return report_of(
        name, target.path, events, catalogue, text, image, ALL_FIELDS, notes=tuple(former.lines())
    )


def open_text_encoder(text_encoder: str) -> str | SentenceEncoder:
    """Load a sentence-transformers model; return ``tfidf`` and ``precomputed`` unchanged."""
    return text_encoder if text_encoder in (TFIDF, PRECOMPUTED) else open_encoder(text_encoder)


def write_text(
    work: Path,
    target: Path,
    name: str,
    catalogue: dict[str, dict[str, Any]],
    encoder: str | SentenceEncoder,
    fields: tuple[str, ...],
) -> dict[str, Any]:
    """Encode and write the catalogue's texts; return their entry in features.yaml.

    A sentence encoder's finished chunks lie beside ``target`` until all is written, so that an
    interrupted preparation resumes there.
    """
    texts = {token: item_text(item, fields) for token, item in catalogue.items()}
    tokens = [token for token, text in texts.items() if text]
    lines = [texts[token] for token in tokens]
    vectors = encode_texts(lines, encoder, kept=target.with_name(f".{name}.text"))
    label = _LABELS[TFIDF] if isinstance(encoder, str) else encoder.label
    return {
        "encoder": label,
        "recipe": recipe(fields),
        "with_text": len(tokens),
        "texts_sha256": texts_sha256(tokens, lines),
        **prepared.write_modality(work, f"{name}.text", tokens, vectors),
    }


def report_of(
    name: str,
    target: Path,
    events: list[Interaction],
    catalogue: dict[str, dict[str, Any]],
    text: dict[str, Any],
    image: dict[str, Any] | None,
    fields: tuple[str, ...],
    image_features: bool = False,
    notes: tuple[str, ...] = (),
) -> PreparedReport:
    """Count what was prepared."""
    return PreparedReport(
        name=name,
        directory=target,
        users=len({event.user for event in events}),
        items=len(catalogue),
        interactions=len(events),
        with_image=image["items"] if image else 0,
        with_text=text["with_text"],
        with_title=sum(bool(item_text(i, ("title", "description"))) for i in catalogue.values()),
        text_encoder=text["encoder"],
        text_fields=fields,
        image_encoder=image["encoder"] if image else "",
        image_features=image_features,
        notes=notes,
    )


def _precomputed_text(
    work: Path,
    name: str,
    folder: Path,
    items: dict[str, dict[str, Any]],
    catalogue: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """Write the source's own text vectors of the items that have text."""
    tokens = [token for token, item in catalogue.items() if item_text(item)]
    file, matrix = src.read_precomputed_text(folder, len(items))
    row_of = {token: row for row, token in enumerate(items)}
    with np.errstate(over="ignore"):
        vectors = matrix[[row_of[token] for token in tokens]].astype(np.float16)
    return {
        "encoder": _LABELS.get(file, file),
        "recipe": f"read from {file}",
        "with_text": len(tokens),
        **prepared.write_modality(work, f"{name}.text", tokens, vectors),
    }


def _prepare_image(
    work: Path,
    name: str,
    folder: Path,
    items: dict[str, dict[str, Any]],
    catalogue: dict[str, dict[str, Any]],
) -> dict[str, Any] | None:
    """Write the image modality and return its metadata; None if the source has no labels."""
    labelled = src.read_image_labels(folder, items)
    if labelled is None:
        return None
    rows = [row for row, token in enumerate(labelled[0]) if token in catalogue]
    tokens, counts = [labelled[0][row] for row in rows], labelled[1][rows]
    if not counts.any():
        raise UserError(
            f"{folder / 'image_labels_multihot.npz'} gives no label to any item that occurs in "
            "interactions.tsv.gz; expected labels. Correct the file or remove it."
        )
    return {
        "encoder": "Rekognition image labels, a stand-in for CNN features",
        "recipe": f"TF-IDF of {counts.shape[1]} labels, truncated SVD, rows of unit length",
        **prepared.write_modality(work, f"{name}.image", tokens, encode_labels(counts)),
    }
