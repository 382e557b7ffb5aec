"""Record of the files that ``prepare`` wrote to a data set's folder; only those are replaced.

``NAME.prepared.yaml`` lists them with their checksums. Folders from before that list existed are
recognised by what they hold; a copy of such a folder is kept when it is replaced.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from recbole_bbqrec.atomic import sha256_of, write_text
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.reading import read_yaml_file

_HEADERS = (  # first lines of NAME.inter, of all versions of prepare
    "user_id:token\titem_id:token\ttimestamp:float",
    "user_id:token\titem_id:token\ttimestamp:float\tunix_time:float",
)
_WRITTEN = ("encoder", "recipe", "dimension", "items", "sha256")  # keys of a prepared modality


def record_path(folder: Path, name: str) -> Path:
    """Return the path of the list of files that ``prepare`` wrote."""
    return folder / f"{name}.prepared.yaml"


def write_record(folder: Path, name: str) -> None:
    """List all files of ``folder`` with their checksums in ``NAME.prepared.yaml``."""
    files = {path.name: sha256_of(path) for path in sorted(folder.iterdir()) if path.is_file()}
    record_path(folder, name).write_text(yaml.safe_dump({"files": files}), encoding="utf-8")


def is_prepared(path: Path, name: str) -> bool:
    """Return True for a file that ``prepare`` wrote and nobody changed since."""
    return path.is_file() and _record(path.parent, name).get(path.name) == sha256_of(path)


def add_to_record(folder: Path, name: str, files: Iterable[Path]) -> None:
    """Add files to the list of those that ``prepare`` wrote; they may lie elsewhere as yet."""
    listed = {**_record(folder, name), **{path.name: sha256_of(path) for path in files}}
    write_text(record_path(folder, name), yaml.safe_dump({"files": listed}))


def is_prepared_modality(matrix: Path, entry: object) -> bool:
    """Return True if ``entry`` of features.yaml was written by ``prepare`` for this very file."""
    if not isinstance(entry, dict) or not set(_WRITTEN) <= set(entry) or not matrix.is_file():
        return False
    return bool(entry["sha256"] == sha256_of(matrix))


def read_entries(path: Path) -> dict[str, Any]:
    """Read features.yaml: modality to description; empty when absent.

    Raises:
        UserError: the file is no YAML mapping.
    """
    if not path.is_file():
        return {}
    content = read_yaml_file(path, "a YAML mapping", "Restore or remove it.") or {}
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a YAML mapping; remove it.")
    return content


def is_changed(path: Path, name: str) -> bool:
    """Return True if a file differs from what ``prepare`` wrote, as far as that is on record."""
    recorded = _record(path.parent, name).get(path.name)
    if recorded is None:
        return False
    state = path.stat()
    return bool(recorded != _known_sha256(path.absolute(), state.st_size, state.st_mtime_ns))


@lru_cache(maxsize=64)
def _known_sha256(path: Path, size: int, modified: int) -> str:
    return sha256_of(path)


def is_unlisted(folder: Path, name: str) -> bool:
    """Return True for a prepared folder from before ``NAME.prepared.yaml`` existed."""
    return not record_path(folder, name).exists() and _has_prepared_events(folder, name)


def check_replaceable(folder: Path, name: str, replacements: Iterable[str]) -> None:
    """Raise a UserError if a file to be replaced was not written by ``prepare``, or has changed.

    Args:
        folder: the data set's folder, which may be absent.
        name: the data set's name.
        replacements: names of the files that are about to be written there.
    """
    record = _record(folder, name)
    for file in replacements:
        path = folder / file
        if path.exists() and not _is_prepared(path, name, record):
            changed = "was changed since `prepare` wrote it" if file in record else (
                "was not written by `prepare`"
            )  # fmt: skip
            raise UserError(
                f"{path} {changed}; it is never replaced, nothing was changed. Prepare under "
                "another name, or move the file away first."
            )


def check_no_input(folder: Path, replacements: Iterable[str], inputs: Iterable[Path]) -> None:
    """Raise a UserError if an input file would be replaced."""
    for source in inputs:
        for path in (folder / file for file in replacements):
            if path.exists() and source.exists() and os.path.samefile(path, source):
                raise UserError(
                    f"{source} is read and would be replaced ({path}); an input is never "
                    "replaced. Prepare under another name, or move the file out of the folder."
                )


def _record(folder: Path, name: str) -> Mapping[str, Any]:
    path = record_path(folder, name)
    files = read_entries(path).get("files", {})
    if not isinstance(files, dict):
        raise UserError(f"{path}: `files` is {files!r}; expected names with checksums.")
    return files


def _is_prepared(path: Path, name: str, record: Mapping[str, Any]) -> bool:
    folder, file = path.parent, path.name
    if path == record_path(folder, name) or file == f"{name}.features.yaml":
        return True  # rewritten with the entries of others kept
    if record_path(folder, name).exists():
        return path.is_file() and file in record and record[file] == sha256_of(path)
    if file in (f"{name}.inter", f"{name}.titles.tsv"):
        return _has_prepared_events(folder, name)
    modality = file[len(name) + 1 :].split(".")[0]
    entry = read_entries(folder / f"{name}.features.yaml").get(modality)
    return is_prepared_modality(folder / f"{name}.{modality}.npy", entry)


def _has_prepared_events(folder: Path, name: str) -> bool:
    events = folder / f"{name}.inter"
    beside = (folder / f"{name}.{suffix}" for suffix in ("features.yaml", "titles.tsv"))
    if not events.is_file() or not all(path.is_file() for path in beside):
        return False
    with open(events, encoding="utf-8", errors="replace") as file:
        return file.readline().rstrip("\n") in _HEADERS
