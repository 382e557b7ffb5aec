"""Read McAuley's image features of 2014: ``image_features_<Category>.b``.

A record is the product's ASIN, 10 characters, and 4,096 float32 numbers, little-endian: the
activations of a CNN's last hidden layer. The file of a category is up to 25 GB; it is streamed, and
what is kept, the rows of wanted items in float16, goes straight to disk.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.runtime import bar_is_hidden

ASIN_BYTES, DIMENSION = 10, 4096
RECORD_BYTES = ASIN_BYTES + 4 * DIMENSION
_BLOCK = 64  # records read at a time, 1 MiB
_ASIN = re.compile(rb"[0-9A-Z]{10}")
_LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class ImageFeatures:
    """Contents of the file.

    Attributes:
        tokens: the item of each written row, in file order.
        unwanted: records of other items.
        repeated: records that repeat a wanted item's, byte for byte.
        zero: wanted items whose vector is all zero; they count as without image.
        largest: the largest absolute value written.
    """

    tokens: list[str]
    unwanted: int
    repeated: int
    zero: int
    largest: float


def write_image_features(path: Path, wanted: Collection[str], output: Path) -> ImageFeatures:
    """Write the vectors of ``wanted`` items as float16 [rows, 4096] to ``output`` (.npy).

    float16 keeps 11 bits of a number and reaches 65,504; a value beyond is an error, not an
    infinity.

    Raises:
        UserError: the file is absent, truncated or of another record length, a number is not
            finite or does not fit, two records of a wanted item differ, or no item is wanted.
    """
    digests: dict[str, bytes] = {}
    tokens: list[str] = []
    unwanted = repeated = zero = 0
    largest = 0.0
    rows = output.with_name(output.name + ".rows")
    with open(rows, "wb") as file:
        for number, record in enumerate(_records(path), start=1):
            item = record[:ASIN_BYTES].decode("ascii")
            if item not in wanted:
                unwanted += 1
                continue
            digest = hashlib.sha256(record).digest()
            if item in digests:
                if digests[item] != digest:
                    raise _bad(path, number, f"gives {item!r} another vector than an earlier one")
                repeated += 1
                continue
            digests[item] = digest
            vector = np.frombuffer(record, dtype="<f4", offset=ASIN_BYTES)  # [4096]
            peak = float(np.abs(vector).max())
            if not np.isfinite(peak):
                raise _bad(path, number, f"({item!r}) holds a NaN or an infinity")
            # Half a unit above the largest number still rounds to it, but nothing here is near.
            if peak > _LARGEST:
                raise _bad(path, number, f"({item!r}) holds {peak:g}, beyond float16's 65,504")
            if peak == 0:
                zero += 1
                continue
            largest = max(largest, peak)
            file.write(vector.astype("<f2").tobytes())
            tokens.append(item)
    if not tokens:
        raise UserError(
            f"{path} has no vector for any of the {len(wanted):,} items of the reviews; expected "
            "the image features of the same category."
        )
    header = {"descr": "<f2", "fortran_order": False, "shape": (len(tokens), DIMENSION)}
    with open(rows, "rb") as kept, open(output, "wb") as matrix:
        np.lib.format.write_array_header_1_0(matrix, header)
        shutil.copyfileobj(kept, matrix, 1 << 20)
    rows.unlink()
    return ImageFeatures(tokens, unwanted, repeated, zero, largest)


def _records(path: Path) -> Iterator[bytes]:
    try:
        size = path.stat().st_size
        if size == 0:
            raise UserError(f"{path} is empty; expected records of {RECORD_BYTES:,} bytes.")
        bar = tqdm(total=size, desc=path.name, unit="B", unit_scale=True, disable=bar_is_hidden())
        with open(path, "rb") as file, bar:
            number = 0
            while block := file.read(_BLOCK * RECORD_BYTES):
                for start in range(0, len(block), RECORD_BYTES):
                    number += 1
                    record = block[start : start + RECORD_BYTES]
                    if not _ASIN.fullmatch(record[:ASIN_BYTES]):
                        begins = record[:ASIN_BYTES]
                        raise _bad(path, number, f"begins with {begins!r}, which is no ASIN")
                    if len(record) < RECORD_BYTES:
                        raise _bad(path, number, f"ends after {len(record):,} bytes")
                    yield record
                bar.update(len(block))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}).") from error


def _bad(path: Path, number: int, found: str) -> UserError:
    return UserError(
        f"{path}, record {number:,} {found}; expected records of {RECORD_BYTES:,} bytes, an ASIN "
        f"of 10 characters and {DIMENSION:,} finite little-endian float32 numbers. The file is "
        "truncated or of another kind: remove it and fetch it again."
    )
