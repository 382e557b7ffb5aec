"""Prepare a data set from McAuley's public files of 2014, fetched where they are absent."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recbole_bbqrec.atomic import sha256_of
from recbole_bbqrec.data.features import read_item_list
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.prepare import atomic_files as prepared
from recbole_bbqrec.prepare.encoders.sentences import SENTENCE_T5
from recbole_bbqrec.prepare.folder import PRECOMPUTED, open_text_encoder, report_of, write_text
from recbole_bbqrec.prepare.mcauley.download import DownloadError, download, gzip_fault
from recbole_bbqrec.prepare.mcauley.files import CATEGORIES, MIRRORS, Mirror, RawFile, raw_files
from recbole_bbqrec.prepare.mcauley.images import (
    DIMENSION,
    RECORD_BYTES,
    ImageFeatures,
    write_image_features,
)
from recbole_bbqrec.prepare.mcauley.reviews import (
    CORE,
    Metadata,
    Reviews,
    read_metadata,
    read_reviews,
)
from recbole_bbqrec.prepare.source_files import read_precomputed_text
from recbole_bbqrec.prepare.table1 import PreparedReport
from recbole_bbqrec.prepare.text import PAPER_FIELDS, item_text

#: Where raw files are kept unless a folder is named, below the folder of the data sets.
RAW_FOLDER = "amazon-2014"


def prepare_from_raw(
    name: str,
    output_root: str | os.PathLike[str],
    raw: str | os.PathLike[str] | None = None,
    text_encoder: str = SENTENCE_T5,
    images: bool = True,
    force: bool = False,
    mirrors: tuple[Mirror, ...] = MIRRORS,
) -> PreparedReport:
    """Prepare data set ``name`` from McAuley's files into ``output_root/name``.

    Args:
        name: one of :data:`~recbole_bbqrec.prepare.mcauley.files.CATEGORIES`.
        output_root: RecBole's ``data_path``.
        raw: folder with the three files; those absent are downloaded to it. None:
            ``output_root/amazon-2014``.
        text_encoder: a sentence-transformers model, ``tfidf``, or ``precomputed`` (``text_*.npy``
            and ``text_*.items.txt`` in ``raw``).
        images: False leaves the image features out, by far the largest file.
        force: replace an existing folder, as in
            :func:`~recbole_bbqrec.prepare.folder.prepare_from_source`.
        mirrors: servers to download from.

    Raises:
        UserError: the name, a file or the encoder is not as expected, a file can be neither
            found nor fetched, the disk is full, or the target exists and ``force`` is not set.
            The target is then as it was.
    """
    if name not in CATEGORIES:
        raise UserError(
            f"McAuley's files are known for {', '.join(CATEGORIES)}, not for {name!r}. Use one of "
            "these names, or another source (see `prepare --help`)."
        )
    modalities = ("text", "image") if images else ("text",)
    target = prepared.check_target(name, output_root, force, modalities=modalities)
    encoder = open_text_encoder(text_encoder)
    folder = Path(output_root) / RAW_FOLDER if raw is None else Path(raw)
    files = raw_files(name)
    wanted = [files.reviews, files.meta, *([files.images] if images else [])]
    fetch_missing(name, folder, wanted, mirrors)

    reviews = read_reviews(folder / files.reviews.name)
    used = dict.fromkeys(event.item for event in reviews.events)
    metadata = read_metadata(folder / files.meta.name, used)
    catalogue = {item: metadata.items.get(item, {}) for item in used}

    with prepared.rebuilding(target) as work:
        prepared.write_interactions(work / f"{name}.inter", reviews.events, reviews.times)
        prepared.write_titles(work / f"{name}.titles.tsv", catalogue)
        if encoder == PRECOMPUTED:
            text = _precomputed_text(work, name, folder, catalogue)
        else:
            text = write_text(work, target.path, name, catalogue, encoder, PAPER_FIELDS)
        meta_path = folder / files.meta.name
        text.update(source=meta_path.name, source_sha256=sha256_of(meta_path))
        described = {"text": text}
        found = None
        if images:
            found = write_image_features(
                folder / files.images.name, used, work / f"{name}.image.npy"
            )
            described["image"] = _describe_images(work, name, files.images.name, found)
        former = prepared.write_description(target, work, described)
    return report_of(
        name, target.path, reviews.events, catalogue, text, described.get("image"), PAPER_FIELDS,
        image_features=images,
        notes=(*_notes(reviews, metadata, catalogue, found), *former.lines()),
    )  # fmt: skip


def fetch_missing(
    name: str, folder: Path, files: Sequence[RawFile], mirrors: tuple[Mirror, ...] = MIRRORS
) -> None:
    """Download the ``files`` that ``folder`` lacks.

    Raises:
        UserError: one cannot be had; the message says which files to put where.
    """
    missing = [file for file in files if not (folder / file.name).is_file()]
    for file in missing:
        path = folder / file.name
        print(f"{path} is absent; downloading it (about {file.gigabytes} GB).", flush=True)
        try:
            download(file.urls(mirrors), path, _record_fault if file.images else gzip_fault)
        except DownloadError as error:
            left = [file for file in missing if not (folder / file.name).is_file()]
            raise UserError(_by_hand(name, folder, left, str(error))) from error


def _by_hand(name: str, folder: Path, files: list[RawFile], fault: str) -> str:
    wanted = "; ".join(f"{f.name}, about {f.gigabytes} GB, from {f.urls()[0]}" for f in files)
    skip = ""
    if any(file.images for file in files):
        skip = " Or leave the image features out with --no_images."
    return (
        f"Cannot download {files[0].name} ({fault}). Put these files into {folder} and run "
        f"`python -m recbole_bbqrec prepare {name} --raw {shlex.quote(str(folder))}`: "
        f"{wanted}.{skip} A transfer that broke goes on where it was when the same command is run "
        "again."
    )


def _record_fault(path: Path) -> str | None:
    size = path.stat().st_size
    if size and size % RECORD_BYTES == 0:
        return None
    return f"has {size:,} bytes, which is not a multiple of a record's {RECORD_BYTES:,}"


def _precomputed_text(
    work: Path, name: str, folder: Path, catalogue: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Write the text vectors of ``text_*.npy``; ``text_*.items.txt`` names the rows' items."""
    paths = sorted(folder.glob("text_*.npy"))
    lists = [path.with_suffix(".items.txt") for path in paths]
    tokens = read_item_list(lists[0]) if len(lists) == 1 else []
    file, matrix = read_precomputed_text(folder, len(tokens), "".join(x.name for x in lists[:1]))
    rows = [row for row, token in enumerate(tokens) if token in catalogue]
    if not rows:
        raise UserError(
            f"{lists[0]} names none of the {len(catalogue):,} items of the reviews (first line: "
            f"{tokens[0]!r}); expected their ASINs."
        )
    with np.errstate(over="ignore"):
        vectors = matrix[rows].astype(np.float16)
    return {
        "encoder": file,
        "recipe": f"read from {file}; {len(tokens) - len(rows):,} rows of other items left out",
        "with_text": len(rows),
        **prepared.write_modality(work, f"{name}.text", [tokens[row] for row in rows], vectors),
    }


def _describe_images(work: Path, name: str, source: str, found: ImageFeatures) -> dict[str, Any]:
    prepared.write_lines(work / f"{name}.image.items.txt", found.tokens)
    return {
        "encoder": "CNN features published with the Amazon data (McAuley et al., 2015)",
        "recipe": f"rows of {source} as they are, float32 rounded to float16",
        "largest": found.largest,
        **prepared.describe_matrix(work / f"{name}.image.npy", len(found.tokens), DIMENSION),
    }


def _notes(
    reviews: Reviews,
    metadata: Metadata,
    catalogue: dict[str, dict[str, Any]],
    found: ImageFeatures | None,
) -> list[str]:
    """Return notes with counts about missing or unexpected data."""
    notes = []
    if reviews.is_core:
        notes.append(f"Every user and item has at least {CORE} reviews.")
    else:
        notes.append(
            f"Not a {CORE}-core: {reviews.sparse_users:,} users and {reviews.sparse_items:,} items "
            f"have fewer than {CORE} reviews; a run leaves them out unless told otherwise."
        )
    if reviews.repeated:
        notes.append(f"{reviews.repeated:,} reviews repeat a user and item; all are kept.")
    without = len(catalogue) - len(metadata.items)
    textless = sum(not item_text(item, PAPER_FIELDS) for item in catalogue.values())
    notes.append(
        f"Metadata: {without:,} items have none, {textless:,} no title or description; "
        f"{metadata.repeated:,} of {metadata.lines:,} lines repeat one."
    )
    if found is not None:
        absent = len(catalogue) - len(found.tokens) - found.zero
        notes.append(
            f"Images: {absent:,} items have no record, {found.zero:,} an all-zero one; "
            f"{found.unwanted:,} records of other items left out, {found.repeated:,} repeated. "
            f"Largest value {found.largest:.4g} (float16 reaches 65,504)."
        )
    return notes
