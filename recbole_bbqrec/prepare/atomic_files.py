"""Write a prepared data set, and put it in the place of the former one.

A prepared data set is the folder ``<root>/<NAME>/`` with

* ``NAME.inter``: user, item and time; time is the event's position in the user's sequence, which
  float32, RecBole's type for it, holds exactly; with real times known, their Unix time in the
  column ``unix_time``, which the protocols read;
* for each modality ``NAME.<modality>.npy`` and ``NAME.<modality>.items.txt``;
* ``NAME.features.yaml``: encoder, dimension, recipe and checksum of each modality;
* ``NAME.titles.tsv``: a readable title per item, for reports;
* ``NAME.item_table.parquet``: the columns of the user's table of items, for conditions on them;
* ``NAME.catalogue.txt``: all items, if some without events are kept;
* ``NAME.seen.tsv``: the users' events with these that the core left out, which nothing is trained
  on and `exclude_seen` counts;
* ``NAME.prepared.yaml``: the checksums of these files; a later preparation replaces no others.

Everything is built in a folder beside the target, which it replaces only once it is complete.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from recbole_bbqrec.atomic import folder_beside, sha256_of
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.prepare.interactions import Interaction
from recbole_bbqrec.prepare.text import clean, item_text
from recbole_bbqrec.prepare.written_files import (
    check_no_input,
    check_replaceable,
    is_prepared,
    is_prepared_modality,
    is_unlisted,
    read_entries,
    write_record,
)

_UNWRITABLE = {
    errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM, errno.EEXIST, errno.ENOTDIR,
}  # fmt: skip
CATALOGUE, SEEN, ITEM_TABLE = "catalogue.txt", "seen.tsv", "item_table.parquet"
_NAMED = 10  # kept files named in the report; the others are counted


@dataclass(frozen=True)
class Target:
    """The folder that a data set goes to.

    Attributes:
        path: the folder; where ``dataset/NAME`` is a link, the folder that it leads to.
        name: the data set's name.
        backup: where the present folder is moved to; None if ``prepare`` wrote it.
    """

    path: Path
    name: str
    backup: Path | None = None


def check_target(
    name: str,
    output_root: str | os.PathLike[str],
    force: bool,
    inputs: Iterable[Path] = (),
    modalities: Iterable[str] = (),
) -> Target:
    """Return the folder that data set ``name`` goes to.

    Args:
        name: the data set's name; letters, digits, ``_`` and ``-``.
        output_root: RecBole's ``data_path``.
        force: allow a folder that exists.
        inputs: files that the data set is made of.
        modalities: modalities that will be written.

    Raises:
        UserError: the name is invalid; the folder exists and ``force`` is not set; a file that
            would be replaced is an input, or was not written by ``prepare``; or a file is in the
            folder's place or above it.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise UserError(f"Data set name {name!r}; expected letters, digits, '_' and '-'.")
    target = Path(output_root) / name
    check_folder(target)
    _settle(target.resolve() if target.is_symlink() else target)
    suffixes = ["inter", "titles.tsv"]
    suffixes += [f"{m}.{kind}" for m in modalities for kind in ("npy", "items.txt")]
    replacements = [f"{name}.{suffix}" for suffix in suffixes]
    check_no_input(target, [*replacements, f"{name}.features.yaml"], inputs)
    check_replaceable(target, name, replacements)
    if target.exists() and not force:
        raise UserError(f"{target} already exists; use --force to replace it.")
    # Replace the folder that a link leads to, not the link.
    path = target.resolve() if target.is_symlink() else target
    backup = None
    if is_unlisted(path, name):
        backup = path.with_name(f"{path.name}.bak-{time.strftime('%Y%m%d-%H%M%S')}")
    return Target(path, name, backup)


def check_folder(path: Path) -> None:
    """Raise a UserError if ``path`` or a folder above it is a file, before the long work."""
    for place in (path, *path.parents):
        if place.exists():
            if place.is_dir():
                return
            raise UserError(
                f"{place} is a file; expected a folder for the data set {path.name}. Choose "
                "another with --data_path."
            )


@contextmanager
def rebuilding(target: Target) -> Iterator[Path]:
    """Yield an empty folder that takes the place of ``target.path`` when the block succeeds.

    Raises:
        UserError: the disk is full or closed to writing, or a file is where a folder must be;
            ``target`` is then unchanged, as after any other exception.
    """
    place = target.path
    try:
        with folder_beside(place) as work:
            yield work
            _replace(work, place, target.backup)
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        raise UserError(
            f"{place} cannot be written: {error.strerror}; nothing was changed there. Make room, "
            "or choose another folder with --data_path."
        ) from error


def write_interactions(
    path: Path, events: Iterable[Interaction], times: Iterable[int] | None = None
) -> None:
    """Write the atomic file; ``times`` are the events' Unix times in seconds, if known."""
    if times is None:
        lines = ["user_id:token\titem_id:token\ttimestamp:float"]
        lines += [f"{event.user}\t{event.item}\t{event.order}" for event in events]
    else:
        lines = ["user_id:token\titem_id:token\ttimestamp:float\tunix_time:float"]
        lines += [f"{e.user}\t{e.item}\t{e.order}\t{time}" for e, time in zip(events, times)]
    write_lines(path, lines)


def write_titles(path: Path, catalogue: Mapping[str, Mapping[str, Any]]) -> None:
    """Write a title per item of ``catalogue`` (raw token -> its metadata)."""
    lines = ["item_id\ttitle"]
    for token, item in catalogue.items():
        title = item.get("title")
        # Reports show the text of an item without a title.
        readable = clean(title) if isinstance(title, str) else ""
        lines.append(f"{token}\t{readable or item_text(item)}")
    write_lines(path, lines)


def write_modality(
    work: Path, stem: str, tokens: Sequence[str], vectors: np.ndarray
) -> dict[str, Any]:
    """Write vectors float16 [rows, dim] and their tokens, without rows that are all zero.

    Returns the modality's entry in ``features.yaml``: dimension, items and checksum.
    """
    kept = np.flatnonzero(vectors.any(axis=1)).tolist()
    if not np.isfinite(vectors).all():
        raise UserError(f"{stem}: a feature exceeds the range of float16; scale the features down.")
    np.save(work / f"{stem}.npy", vectors[kept], allow_pickle=False)
    write_lines(work / f"{stem}.items.txt", [tokens[row] for row in kept])
    return describe_matrix(work / f"{stem}.npy", len(kept), int(vectors.shape[1]))


def describe_matrix(path: Path, items: int, dimension: int) -> dict[str, Any]:
    """Return dimension, number of items and checksums of a written matrix and its item list."""
    return {
        "dimension": dimension,
        "items": items,
        "sha256": sha256_of(path),
        "items_sha256": sha256_of(path.with_suffix(".items.txt")),
    }


@dataclass(frozen=True)
class Former:
    """Files of an earlier preparation or of others that this one did not make.

    Attributes:
        removed: modalities of an earlier preparation, whose features were of its catalogue.
        kept: names of files and folders made by others.
        backup: folder that holds the data set as it was, if ``prepare`` may not have written it.
    """

    removed: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    backup: Path | None = None

    def lines(self) -> list[str]:
        """Return report lines about these files; empty without any."""
        messages = []
        if self.removed:
            messages.append(
                f"Removed features that an earlier prepare made: {', '.join(self.removed)}."
            )
        if self.kept:
            more = f" and {len(self.kept) - _NAMED} more" if len(self.kept) > _NAMED else ""
            messages.append(f"Kept from before: {', '.join(self.kept[:_NAMED])}{more}.")
        if self.backup is not None:
            messages.append(f"The data set as it was: {self.backup}; remove it when not needed.")
        return messages


def write_description(
    target: Target, work: Path, described: Mapping[str, Mapping[str, Any]]
) -> Former:
    """Write features.yaml and prepared.yaml; take over others' files in the old folder.

    Features that only an earlier preparation made are dropped: the next run would take them for
    features of the new catalogue.

    Args:
        target: the old folder, which may be absent.
        work: the new one, complete but for this.
        described: entries of the modalities made, of :func:`describe_matrix` and more.

    Raises:
        UserError: the old features.yaml is no YAML mapping, or ``work`` has a file in place of
            one that ``prepare`` did not write.
    """
    folder, name = target.path, target.name
    check_replaceable(folder, name, sorted(path.name for path in work.iterdir()))
    old = read_entries(folder / f"{name}.features.yaml")
    remaining = [modality for modality in old if modality not in described]
    removed = [m for m in remaining if is_prepared_modality(folder / f"{name}.{m}.npy", old[m])]
    left = {f"{name}.{m}.{suffix}" for m in removed for suffix in ("npy", "items.txt")}
    left |= {f"{name}.{modality}.encoder.npz" for modality in (*removed, *described)}
    # Files of the items that an earlier preparation made
    of_items = (f"{name}.{suffix}" for suffix in (CATALOGUE, SEEN, ITEM_TABLE))
    left |= {file for file in of_items if is_prepared(folder / file, name)}
    described = {**{m: entry for m, entry in old.items() if m not in removed}, **described}
    content = yaml.safe_dump(dict(described), sort_keys=False, allow_unicode=True)
    (work / f"{name}.features.yaml").write_text(content, encoding="utf-8")
    write_record(work, name)
    kept = []
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            if path.name not in left and not (work / path.name).exists():
                keep = shutil.copytree if path.is_dir() else shutil.copy2
                keep(path, work / path.name)
                kept.append(path.name)
    return Former(tuple(removed), tuple(kept), target.backup)


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write lines as UTF-8 with plain line feeds."""
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(line + "\n" for line in lines)


def _replace(work: Path, target: Path, backup: Path | None) -> None:
    """Put ``work`` in the place of ``target``; a failure leaves ``target`` unchanged.

    The old folder is moved to ``backup``, or removed if that is None.
    """
    if not target.exists():
        os.rename(work, target)
        return
    aside = backup or _aside(target)
    os.rename(target, aside)
    try:
        os.rename(work, target)
    except OSError:
        os.rename(aside, target)
        raise
    if backup is None:
        shutil.rmtree(aside)


def _aside(path: Path) -> Path:
    """Return where the folder ``path`` is while another takes its place."""
    return path.with_name(f".{path.name}.old")


def _settle(path: Path) -> None:
    """Finish what a process left that was killed while it replaced the folder ``path``."""
    aside = _aside(path)
    if aside.is_dir() and not path.exists():
        os.rename(aside, path)
    shutil.rmtree(aside, ignore_errors=True)
