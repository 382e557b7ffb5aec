"""Photos of a folder as the modality ``image``, aligned with the catalogue by file name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.prepare.atomic_files import describe_matrix, write_lines
from recbole_bbqrec.prepare.encoders.photos import ImageEncoder, Photos
from recbole_bbqrec.prepare.tables.ledger import Ledger

IMAGE = "image"


def write_photos(
    photos: Photos,
    encoder: ImageEncoder,
    catalogue: Mapping[str, int],
    names: Sequence[str],
    stem: Path,
    chunks: Path,
    ledger: Ledger,
) -> dict[str, Any]:
    """Encode the photos of the catalogue's items; write ``<stem>.npy`` and ``<stem>.items.txt``.

    Args:
        photos: the photos found.
        encoder: the model.
        catalogue: raw token to code.
        names: raw tokens by code.
        stem: path of the files without their suffix.
        chunks: folder for what is encoded, which outlives an interruption.
        ledger: takes counts of photos without an item, unreadable ones, and items without one.

    Returns:
        The modality's entry for features.yaml.

    Raises:
        UserError: no photo has the name of an item, or none can be read.
    """
    tokens = [token for token in names if token in photos.paths]
    if not tokens:
        raise UserError(
            f"--images={photos.folder}: none of its {len(photos.paths):,} photos has the name of "
            f"an item (its first: {next(iter(photos.paths))!r}; among the items: "
            f"{next(iter(catalogue))!r}). Expected files called ITEM.jpg, by raw item token."
        )
    others = [photos.paths[token].name for token in photos.paths if token not in catalogue]
    ledger.add("photos whose item has no interaction left", len(others), (others or [""])[0])
    vectors = encoder.encode([photos.paths[token] for token in tokens], chunks)
    readable = np.flatnonzero(vectors.any(axis=1))
    unreadable = [photos.paths[tokens[n]].name for n in np.flatnonzero(~vectors.any(axis=1))]
    ledger.add("photos that cannot be read", len(unreadable), (unreadable or [""])[0], fault=True)
    ledger.add("items without a photo", len(names) - len(readable))
    np.save(f"{stem}.npy", vectors[readable], allow_pickle=False)
    write_lines(Path(f"{stem}.items.txt"), (tokens[n] for n in readable))
    return {
        "encoder": encoder.label,
        "recipe": "photos in RGB, resized and cut as the encoder's own processor does",
        **describe_matrix(Path(f"{stem}.npy"), len(readable), int(vectors.shape[1])),
    }
