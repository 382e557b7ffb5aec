"""Files that are written: atomically, with errors that name the file and the cause; checksums.

A reader sees the old file or the new one, never a part.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recbole_bbqrec.errors import UserError

_FULL = 1 << 16  # bytes; a disk with less room left is called full
_TEMPORARY = re.compile(r"\.(?P<of>.+)\.[a-z0-9_]{8}\.tmp")  # the names of unfinished files


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn a failure of the operating system in the block into an error that names ``path``.

    Raises:
        UserError: the disk is full, a folder is closed to writing, a file is in a folder's place.
    """
    try:
        yield
    except (BrokenPipeError, TimeoutError):  # standard output; a lock that another process holds
        raise
    except OSError as error:
        raise UserError(
            f"Cannot write {path}: {_cause(error, Path(path))}. Make room or open the place for "
            "writing, or choose another; then run the same command again."
        ) from error


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path; on success the file there replaces ``path``.

    The file is in the same directory, because a rename cannot cross file systems. It is flushed to
    disk before the rename, and removed if the block raises.

    Raises:
        UserError: the file cannot be written; see :func:`writing`.
    """
    target = Path(path)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
        os.close(handle)
        temporary = Path(name)
        try:
            # mkstemp makes the file private to its owner: give it the mode of an ordinary file.
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Replace the file ``path`` by ``text`` in UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Replace the file ``path`` by ``content``, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_output(path: Path, text: str) -> None:
    """Replace a file of a command's own output folder, and remove what a killed one left of it."""
    remove_unfinished(path.parent, of=path.name)
    write_text(path, text)


def remove_unfinished(folder: Path, of: str | None = None) -> None:
    """Remove the temporary files that killed processes left in ``folder``.

    Only for files that no other process writes: all of the folder, or those called ``of``.
    """
    for path in folder.glob(".*.tmp"):
        ours = _TEMPORARY.fullmatch(path.name)
        if ours and ours["of"] == (of or ours["of"]) and path.is_file():
            with writing(path):
                path.unlink(missing_ok=True)


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's bytes, 64 hex characters."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _cause(error: OSError, path: Path) -> str:
    """Say why the operating system refused, and where if that is not ``path``."""
    if error.strerror is None and _free(path.parent) < _FULL:  # as NumPy reports a short write
        return "no space left on the disk"
    cause = (error.strerror or str(error) or type(error).__name__).lower()
    place = error.filename
    if isinstance(place, str) and place != str(path) and not _TEMPORARY.fullmatch(Path(place).name):
        return f"{cause} ({place})"
    return cause


def _free(folder: Path) -> int:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return _FULL
