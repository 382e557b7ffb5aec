"""The data that a run read, kept beside its results: a saved run answers without its data set.

A finished run is a bundle: its directory alone, copied anywhere, loads, recommends and evaluates::

    <Model>-<time>/
    ├── model.pth            the best model, the same file as <Model>-<time>.pth beside it
    ├── config.yaml  result.json  semantic_ids.safetensors  tokenizer.pth  ...
    └── data/
        ├── manifest.json    {"format": 1, "dataset": NAME, "files": {FILE: {"sha256", "bytes"}}}
        └── NAME/            the files that the run read, byte for byte:
            NAME.inter       and .user, .item, ... where the data set has them
            NAME.<modality>.npy  NAME.<modality>.items.txt   of each modality that the run reads
            NAME.<modality>.encoder.npz     how new texts are encoded, where prepare encoded them
            NAME.features.yaml  NAME.titles.tsv  NAME.catalogue.txt  NAME.added.txt
            NAME.vocabulary.txt  NAME.seen.tsv  NAME.item_table.parquet

``data/NAME`` is a data set like any other, so the same code reads it and the hash of its split is
the run's. Files are kept as they are, not as tensors: nothing is pickled, and the checks of the
data apply again. ``<checkpoint_dir>/data/<sha256>`` is another name (hard link) of each file, by
which runs on one version of the data share its bytes; in a store, that folder is the store's. Where
a file system has no hard links, each run has its own copy.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_bbqrec.atomic import atomic_path, sha256_of, write_text, writing
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.protocols import RunConfig
from recbole_bbqrec.reading import read_json_object, reading
from recbole_bbqrec.run_files.names import RunFiles

FORMAT = 1  # raised when older bundles can no longer be read
_TABLES = ("inter", "item", "user", "kg", "link", "net", "ent")  # RecBole's, by suffix
_OF_MODALITY = ("npy", "items.txt", "encoder.npz")
_BESIDE = (
    "features.yaml", "titles.tsv", "catalogue.txt", "seen.tsv", "added.txt", "vocabulary.txt",
    "item_table.parquet",
)  # fmt: skip
_READ_ONLY = 0o444  # a file of several names: a change would reach every run


@dataclass(frozen=True)
class ReadFiles:
    """The files of a data set that a run reads, as they were before it read them.

    ``states`` has (bytes, modification time in ns) by file name.
    """

    dataset: str
    folder: Path
    states: Mapping[str, tuple[int, int]]

    @classmethod
    def of(cls, config: RunConfig) -> ReadFiles:
        """Note the files that a run of ``config`` reads; call before they are read."""
        name, folder = str(config["dataset"]), Path(config["data_path"])
        suffixes = [*_TABLES, *(config["additional_feat_suffix"] or ()), *_BESIDE]
        suffixes += [f"{part}.inter" for part in config["benchmark_filename"] or ()]
        suffixes += [f"{m}.{kind}" for m in config["modalities"] or () for kind in _OF_MODALITY]
        files = [folder / f"{name}.{suffix}" for suffix in suffixes]
        return cls(name, folder, {path.name: _state(path) for path in files if path.is_file()})

    def keep(self, files: RunFiles) -> None:
        """Put the files into the run's directory, unless an earlier process of the run did.

        Raises:
            UserError: a file has changed since it was noted, or cannot be written.
        """
        if files.manifest.is_file():
            return
        kept = {}
        for name, state in self.states.items():
            source = self.folder / name
            with reading(source, "a file of the data set", "Restore it, and run again."):
                digest = sha256_of(source)
                if _state(source) != state:
                    raise UserError(
                        f"{source} has changed while the run read it. Run again once it is written."
                    )
                _place(source, digest, files.data / self.dataset / name, files.pool / digest)
            kept[name] = {"sha256": digest, "bytes": state[0]}
        content = {"format": FORMAT, "dataset": self.dataset, "files": kept}
        write_text(files.manifest, json.dumps(content, indent=1) + "\n")
        _remove_unused(files.pool)


def list_data(files: RunFiles, dataset: str) -> None:
    """Write the manifest of a run's data that lie in its directory already."""
    paths = sorted((files.data / dataset).iterdir())
    kept = {p.name: {"sha256": sha256_of(p), "bytes": p.stat().st_size} for p in paths}
    content = {"format": FORMAT, "dataset": dataset, "files": kept}
    write_text(files.manifest, json.dumps(content, indent=1) + "\n")


def keep_model(files: RunFiles) -> None:
    """Give the best model a name in the run's directory, which then holds all that is needed."""
    inside = files.model_inside
    if files.model == inside or not files.model.is_file():
        return
    inside.unlink(missing_ok=True)
    try:
        os.link(files.model, inside)
    except OSError:
        with atomic_path(inside) as temporary:
            shutil.copyfile(files.model, temporary)


def own_data(files: RunFiles, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the option `data_path` that leads to the run's own data; empty where it has none.

    Also empty where ``overrides`` name other data: these are then compared with the run's.

    Raises:
        UserError: the manifest or a file is missing or damaged, or of another format.
    """
    if {"data_path", "dataset"} & set(overrides or ()) or not files.manifest.is_file():
        return {}
    remedy = "Restore it, or say where the run's data are with --data_path=DIRECTORY."
    kind = "the list of a run's data"
    content = read_json_object(files.manifest, kind, remedy)
    if content.get("format") != FORMAT:
        raise UserError(
            f"{files.manifest} has the format {content.get('format')!r}; expected {FORMAT}: "
            "another version of recbole_bbqrec wrote it. Use that version."
        )
    with reading(files.manifest, kind, remedy):
        listed = {
            files.data / _plain(content["dataset"]) / _plain(name): str(entry["sha256"])
            for name, entry in content["files"].items()
        }
    for path, digest in listed.items():
        with reading(path, "a file of the run's data", remedy):
            if sha256_of(path) != digest:
                raise UserError(
                    f"{path} is damaged: its SHA-256 is not the one in {files.manifest}. {remedy}"
                )
    return {"data_path": str(files.data.absolute())}


# helpers --------------------------------------------------------------------------------------


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _plain(name: Any) -> str:
    """Return the name of a file; a path could lead out of the run's directory."""
    if not isinstance(name, str) or Path(name).name != name:
        raise ValueError(f"{name!r} is not the name of a file")
    return name


def _place(source: Path, digest: str, target: Path, pooled: Path) -> None:
    """Make ``target`` a name of the file ``pooled``, or else copy ``source`` and pool the copy."""
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
    with suppress(OSError):
        if pooled.stat().st_size == source.stat().st_size:
            os.link(pooled, target)
            return
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)
        if sha256_of(temporary) != digest:
            raise UserError(f"{source} has changed while it was copied. Run again.")
    with suppress(OSError):
        target.chmod(_READ_ONLY)
        pooled.parent.mkdir(exist_ok=True)
        os.link(target, pooled)


def _remove_unused(pool: Path) -> None:
    """Remove the files of the pool that no run has any more."""
    for path in pool.glob("*"):
        with suppress(OSError):
            if path.stat().st_nlink == 1:
                path.unlink()
