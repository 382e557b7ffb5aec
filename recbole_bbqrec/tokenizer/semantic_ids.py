"""Semantic IDs of a data set as one file, keyed by raw item tokens."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Union

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from recbole_bbqrec.atomic import write_bytes
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.reading import reading

FORMAT = 1
_HEADER = "recbole_bbqrec"
_PAD = "[PAD]"
Metadata = Mapping[str, Union[str, int, float]]


@dataclass(frozen=True)
class SemanticIds:
    """Codes and vectors of n items, in the order of ``item_tokens`` (raw tokens, no [PAD]).

    codes int64 [n, L, M]; vectors float32 [n, V]; codebooks float32 [S, L, N, D] (S = 1 when
    shared by the signals) or None; signals: names of the M signals. codes_before int64
    [n, L', M], L' <= L, are the quantizer's codes before items with one semantic ID were
    separated; None in files of older versions. ``metadata`` describes the run: :meth:`align`
    compares "dataset" and "split_hash", and "codebook_size" is needed without codebooks. Raises
    ValueError on parts that do not fit together.
    """

    item_tokens: tuple[str, ...]
    codes: Tensor
    vectors: Tensor
    codebooks: Tensor | None
    signals: tuple[str, ...]
    metadata: Metadata = field(default_factory=dict)
    codes_before: Tensor | None = None

    def __post_init__(self) -> None:
        problem = _problem(self)
        if problem:
            raise ValueError(f"inconsistent semantic IDs: {problem}")

    @property
    def levels(self) -> int:
        """Number of levels L."""
        return self.codes.shape[1]

    @property
    def codebook_size(self) -> int:
        """Number of codes N of a codebook."""
        if self.codebooks is not None:
            return self.codebooks.shape[2]
        return int(self.metadata["codebook_size"])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file, atomically; the same object gives the same bytes."""
        text = "\n".join(self.item_tokens).encode()
        tensors = {
            "item_tokens": torch.frombuffer(bytearray(text), dtype=torch.uint8),
            "codes": self.codes.cpu().contiguous(),
            "vectors": self.vectors.cpu().contiguous(),
        }
        if self.codebooks is not None:
            tensors["codebooks"] = self.codebooks.cpu().contiguous()
        if self.codes_before is not None:
            tensors["codes_before"] = self.codes_before.cpu().contiguous()
        header = {"format": FORMAT, "signals": self.signals, "metadata": dict(self.metadata)}
        header["sha256"] = _checksum(tensors, header)
        content = save(tensors, metadata={_HEADER: json.dumps(header, sort_keys=True)})
        write_bytes(path, content)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SemanticIds:
        """Read a file of :meth:`save`; raise UserError naming the file if it is another."""
        if not Path(path).is_file():
            raise UserError(f"semantic IDs: there is no file {path}; run phase one first.")
        remedy = "Restore it, give the file of another run, or run phase one again."
        with reading(path, "semantic IDs", remedy):
            tensors, header = _read(path)
            codes, vectors = tensors["codes"], tensors["vectors"]
            text = tensors["item_tokens"].numpy().tobytes().decode()
            return cls(
                item_tokens=tuple(text.split("\n")), codes=codes, vectors=vectors,
                codebooks=tensors.get("codebooks"), signals=tuple(header["signals"]),
                metadata=header["metadata"], codes_before=tensors.get("codes_before"),
            )  # fmt: skip

    def align(
        self,
        item_tokens: Sequence[str],
        dataset_name: str,
        *,
        split_hash: str | None = None,
        fingerprints: Mapping[str, str] | None = None,
        levels: int | None = None,
        codebook_size: int | None = None,
        width: int | None = None,
        signals: Sequence[str] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return codes int64 [n_items, L, M] and vectors float32 [n_items, V] of a data set.

        ``item_tokens`` is the data set's vocabulary with "[PAD]" at 0, whose rows are zero. Items
        that only the file has are ignored. The other arguments are expected values:
        ``fingerprints`` of the features by modality, ``width`` V, and so on; None is not checked.
        Raises UserError when an item of the data set is missing here, or a value differs.
        """
        if not item_tokens or item_tokens[0] != _PAD:
            raise ValueError(f"item_tokens[0] must be {_PAD!r}")
        self._expect(dataset_name, "codebook_levels", self.levels, levels)
        self._expect(dataset_name, "codebook_size", self.codebook_size, codebook_size)
        expected = None if signals is None else list(signals)
        self._expect(dataset_name, "modalities", list(self.signals), expected)
        self._expect(dataset_name, "codebook_dim", self.vectors.shape[1], width)
        self._expect_split(dataset_name, split_hash)
        self._expect_features(dataset_name, fingerprints or {})
        row_of = {token: row for row, token in enumerate(self.item_tokens)}
        missing = [token for token in item_tokens[1:] if token not in row_of]
        if missing:
            raise UserError(
                f"semantic IDs: {len(missing)} of the {len(item_tokens) - 1} items of data set "
                f"{dataset_name!r} are not in the file{self._origin()}, for example "
                f"{missing[0]!r}. Run phase one on this data set, or point to its own file."
            )
        rows = torch.tensor([row_of[token] for token in item_tokens[1:]], dtype=torch.int64)
        codes = torch.cat([self.codes.new_zeros(1, *self.codes.shape[1:]), self.codes[rows]])
        vectors = torch.cat([self.vectors.new_zeros(1, self.vectors.shape[1]), self.vectors[rows]])
        return codes, vectors

    def _expect(self, dataset_name: str, key: str, value: Any, expected: Any) -> None:
        if expected is None or value == expected:
            return
        what = {"modalities": "signals", "codebook_dim": "vectors of width"}.get(key, key)
        raise UserError(
            f"semantic IDs for data set {dataset_name!r}: the file{self._origin()} has {what} "
            f"{value}, the configuration asks for {expected}. Change `{key}` to match, or run "
            "phase one again."
        )

    def _expect_split(self, dataset_name: str, split_hash: str | None) -> None:
        stored = self.metadata.get("split_hash")
        if split_hash is None or stored == split_hash:
            return
        raise UserError(
            f"semantic IDs for data set {dataset_name!r}: the file{self._origin()} was made from "
            f"another split (split_hash {stored}, now {split_hash}): its training items may be "
            "today's test items. Use the same interactions and filters, or run phase one again."
        )

    def _expect_features(self, dataset_name: str, fingerprints: Mapping[str, str]) -> None:
        for name, now in fingerprints.items():
            stored = self.metadata.get(f"fingerprint_{name}", now)
            if stored != now:
                raise UserError(
                    f"semantic IDs for data set {dataset_name!r}: the file{self._origin()} was "
                    f"made from {name} features {stored}; those at hand are {now}. Restore the "
                    "features, or run phase one again."
                )

    def _origin(self) -> str:
        """Return " (made from data set ...)" if the metadata names it."""
        name = self.metadata.get("dataset")
        return "" if name is None else f" (made from data set {name!r})"


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return all tensors and the parsed header of a safetensors file."""
    with safe_open(str(path), framework="pt") as file:
        header = json.loads((file.metadata() or {})[_HEADER])
        if header["format"] != FORMAT:
            raise ValueError(f"format {header['format']!r}, this version reads {FORMAT}")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if header.pop("sha256", None) not in (None, _checksum(tensors, header)):
        raise ValueError("the checksum does not fit")  # files of older versions have none
    return tensors, header


def _checksum(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the header and of the tensors' names, types, shapes and bytes."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {_describe(tensor)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _problem(ids: SemanticIds) -> str | None:
    """Describe the first part that does not fit, or return None."""
    tokens, codes, vectors, books = ids.item_tokens, ids.codes, ids.vectors, ids.codebooks
    before = ids.codes_before
    if codes.dim() != 3 or codes.dtype != torch.int64 or codes.shape[2] != len(ids.signals):
        return f"codes must be int64 [n, L, {len(ids.signals)}], not {_describe(codes)}"
    if vectors.dim() != 2 or vectors.dtype != torch.float32 or not vectors.isfinite().all():
        return f"vectors must be finite float32 [n, V], not {_describe(vectors)}"
    if not len(tokens) == len(codes) == len(vectors):
        return f"{len(tokens)} item tokens, {len(codes)} codes, {len(vectors)} vectors"
    if len(set(tokens)) != len(tokens) or any(not token or "\n" in token for token in tokens):
        return "item tokens must be distinct, not empty, and free of line breaks"
    if books is None and not isinstance(ids.metadata.get("codebook_size"), int):
        return "without codebooks the metadata must hold an integer codebook_size"
    if books is not None and (
        books.dim() != 4 or books.shape[1] != codes.shape[1] or books.dtype != torch.float32
    ):
        return f"codebooks must be float32 [S, {codes.shape[1]}, N, D], not {_describe(books)}"
    if before is not None and (
        before.dtype != torch.int64
        or before.dim() != 3
        or before.shape[::2] != codes.shape[::2]
        or not 1 <= before.shape[1] <= codes.shape[1]
    ):
        return f"codes_before must be int64 and fit codes, not {_describe(before)}"
    for part in (codes, before):
        if (
            part is not None
            and len(part)
            and not 0 <= int(part.min()) <= int(part.max()) < (ids.codebook_size)
        ):
            return f"codes must lie in [0, {ids.codebook_size})"
    return None


def _describe(tensor: Tensor) -> str:
    return f"{tensor.dtype} {list(tensor.shape)}"
