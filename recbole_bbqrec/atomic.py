"""Files that are written: atomically, with errors that name the file and the cause; checksums.

A reader sees the old file or the new one, never a part. An unfinished file or folder has a name of
its own, and its writer holds a lock on it: one that nobody holds is of a killed process, and the
next one that writes the same file removes it. Systems without such locks keep it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recbole_bbqrec.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_FULL = 1 << 16  # bytes; a disk with less room left is called full
_TEMPORARY = re.compile(r"\.(?P<of>.+)\.[a-z0-9_]{8}\.tmp")  # unfinished


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
    with writing(target), _unfinished(target, _new_file, 0o666) as temporary:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield an empty folder that becomes ``path`` on success; there must be no file or folder yet.

    Raises:
        UserError: the folder cannot be written; see :func:`writing`.
    """
    target = Path(path)
    with writing(target), folder_beside(target) as temporary:
        yield temporary
        os.rename(temporary, target)


@contextmanager
def folder_beside(target: Path) -> Iterator[Path]:
    """Yield an empty folder in that of ``target``, for the work on it; it is removed at the end."""
    with _unfinished(target, tempfile.mkdtemp, 0o777) as temporary:
        yield temporary


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Replace the file ``path`` by ``text`` in UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Replace the file ``path`` by ``content``, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def remove_unfinished(folder: Path, of: str | None = None) -> None:
    """Remove the unfinished files and folders that killed processes left in ``folder``.

    Those of living processes stay.

    Args:
        folder: it may be absent.
        of: name of the file or folder that they would have become; None for any.
    """
    if not folder.is_dir():
        return
    for name in os.listdir(folder):
        ours = _TEMPORARY.fullmatch(name)
        if ours is None or ours["of"] != (of or ours["of"]):
            continue
        path = folder / name
        lock = _lock(path)
        if lock is not None:
            try:
                with writing(path):
                    _remove(path)
            finally:
                os.close(lock)


def remove_folder(folder: Path, of: str) -> None:
    """Remove a folder; what a kill leaves of it is an unfinished ``of``, and as such removed."""
    gone = folder.with_name(f".{of}.finished.tmp")
    os.rename(folder, gone)
    shutil.rmtree(gone)


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's bytes, 64 hex characters."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def _unfinished(target: Path, make: Callable[..., str], mode: int) -> Iterator[Path]:
    """Yield a new file or folder beside ``target``, locked; it is removed at the end."""
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_unfinished(target.parent, of=target.name)
    temporary = Path(make(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp"))
    lock = _lock(temporary)
    try:
        # It is private to its owner when new: give it the mode of any other.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(mode & ~umask)
        yield temporary
    finally:
        _remove(temporary)
        if lock is not None:
            os.close(lock)


def _new_file(**where: Any) -> str:
    handle, name = tempfile.mkstemp(**where)
    os.close(handle)
    return name


def _lock(path: Path) -> int | None:
    """Lock a file or folder until the descriptor is closed; None if that cannot be."""
    if fcntl is None:
        return None
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def _remove(path: Path) -> None:
    """Remove a file or folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


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
