"""Fetch a file over HTTP; resume after an interruption or a bad connection.

The bytes go to ``<file>.part``. A transfer that breaks goes on from there (HTTP Range, and
If-Range, so that a file that changed meanwhile starts anew), in this call or in a later one, also
from another server if its file bears the same mark and size. Only a file of the size that the
server gave, and that passes the caller's check, gets its name.
"""

from __future__ import annotations

import errno
import gzip
import json
import os
import re
import shutil
import socket
import time
import zlib
from collections.abc import Callable, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from tqdm.auto import tqdm

from recbole_bbqrec.atomic import atomic_path
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.runtime import bar_is_hidden
from recbole_bbqrec.version import __version__

_BLOCK = 1 << 20
_ATTEMPTS = 5  # consecutive attempts at one address that gain no byte
_TIMEOUT = 60  # seconds without a byte
_LONGEST_WAIT = 60
_PASSING = {408, 425, 429, 500, 502, 503, 504}  # statuses worth another attempt


class DownloadError(Exception):
    """Raised when no address gave the file; the message lists the servers' answers."""


class _Fault(Exception):
    """Raised when a transfer broke off and is worth another attempt."""


def download(
    urls: Sequence[str],
    target: Path,
    check: Callable[[Path], str | None] | None = None,
    wait: Callable[[float], Any] = time.sleep,
) -> None:
    """Fetch ``target`` from the first of ``urls`` that has it.

    Args:
        urls: http or https addresses of the same file, best first.
        target: where it goes; its folder is made.
        check: what is wrong with a complete file, or None if nothing is.
        wait: called with the seconds to wait before another attempt.

    Raises:
        DownloadError: no address gave the whole file. What was fetched is kept for a next call.
        UserError: an address is not http(s), or the disk is full.
    """
    for url in urls:
        if not url.startswith(("http://", "https://")):
            raise UserError(f"Cannot download {url!r}; expected an http or https address.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{target.parent} cannot be made ({error.strerror}); expected a folder to put "
            f"{target.name} into. Choose another one."
        ) from error
    part = target.with_name(target.name + ".part")
    faults = []
    for url in urls:
        fault = _fetch(url, part, check, wait)
        if fault is None:
            with open(part, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(part, target)
            _state_path(part).unlink(missing_ok=True)
            return
        faults.append(f"{urlsplit(url).netloc}: {fault}")
    raise DownloadError("; ".join(dict.fromkeys(faults)))


def gzip_fault(path: Path) -> str | None:
    """Return the fault of a gzip file, read to its end; None if it has none."""
    try:
        with gzip.open(path, "rb") as file:
            while file.read(_BLOCK):
                pass
    except (EOFError, OSError, zlib.error) as error:
        return f"is not a whole gzip file ({error})"
    return None


def _fetch(
    url: str,
    part: Path,
    check: Callable[[Path], str | None] | None,
    wait: Callable[[float], Any],
) -> str | None:
    """Complete ``part`` from one address; return the reason of a failure, or None."""
    fault, attempt, furthest = "", 0, _size(part)
    while attempt < _ATTEMPTS:
        if attempt:
            wait(min(_LONGEST_WAIT, 2.0**attempt))
        attempt += 1
        try:
            _transfer(url, part)
            wrong = check(part) if check is not None else None
            if wrong is None:
                return None
            part.unlink()
            fault = f"the file {wrong}"
        except HTTPError as error:
            fault = f"HTTP status {error.code} ({error.reason})"
            if error.code not in _PASSING:
                break
        except URLError as error:
            fault = str(error.reason)
            if isinstance(error.reason, socket.gaierror):
                break  # no such host, or no network: waiting does not help
        except (_Fault, HTTPException, ConnectionError, TimeoutError) as error:
            fault = str(error) or type(error).__name__
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise _full(part) from error
            fault = str(error)
        except ValueError as error:  # not an address
            fault = str(error)
            break
        if _size(part) > furthest:
            furthest, attempt = _size(part), 1  # progress: count attempts anew
    return fault


def _transfer(url: str, part: Path) -> None:
    """Send one request: append the missing bytes to ``part``, or start it anew."""
    state = _read_state(part)
    offset = _size(part) if state.get("validator") else 0
    headers = {"User-Agent": f"recbole_bbqrec/{__version__}", "Accept-Encoding": "identity"}
    if offset:
        headers.update({"Range": f"bytes={offset}-", "If-Range": state["validator"]})
    try:
        response = urlopen(Request(url, headers=headers), timeout=_TIMEOUT)
    except HTTPError as error:
        if error.code == 416 and offset:  # complete already, or the file shrank
            if offset == state.get("total"):
                return
            part.unlink()
            raise _Fault("the server's file changed; starting anew") from error
        raise
    total: int | None
    with response:
        if response.status == 206:
            total = _check_range(response.headers.get("Content-Range", ""), offset, state, part)
        else:
            offset = 0
            length = response.headers.get("Content-Length", "")
            total = int(length) if length.isdecimal() else None
        _check_room(part, total, offset)
        _write_state(part, _validator(response.headers), total)
        bar = tqdm(
            total=total,
            initial=offset,
            desc=part.stem,
            unit="B",
            unit_scale=True,
            disable=bar_is_hidden(),
        )  # fmt: skip
        with open(part, "ab" if offset else "wb") as file, bar:
            while block := response.read(_BLOCK):
                file.write(block)
                bar.update(len(block))
    if total is not None and _size(part) != total:
        size = _size(part)
        if size > total:
            part.unlink()
        raise _Fault(f"the transfer ended after {size:,} of {total:,} bytes")


def _check_range(value: str, offset: int, state: dict[str, Any], part: Path) -> int:
    """Return the total size in Content-Range, which must continue the file begun."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", value)
    if found is None or int(found[1]) != offset or int(found[2]) != state.get("total"):
        part.unlink(missing_ok=True)
        raise _Fault(f"the server answered with another range ({value!r}); starting anew")
    return int(found[2])


def _check_room(part: Path, total: int | None, offset: int) -> None:
    if total is not None and total - offset > shutil.disk_usage(part.parent).free:
        raise _full(part, total - offset)


def _full(part: Path, needed: int | None = None) -> UserError:
    free = shutil.disk_usage(part.parent).free / 1e9
    more = f"{needed / 1e9:.1f} GB more are needed, {free:.1f} GB are free" if needed else "full"
    return UserError(
        f"No room on the disk for {part.with_name(part.stem)}: {more}. What was fetched is kept "
        f"in {part.name}. Make room and run the same command again."
    )


def _validator(headers: Any) -> str | None:
    """Return the version of the file: a strong ETag, or its date."""
    tag = headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")


def _state_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _read_state(part: Path) -> dict[str, Any]:
    try:
        state = json.loads(_state_path(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _write_state(part: Path, validator: str | None, total: int | None) -> None:
    with atomic_path(_state_path(part)) as temporary:
        content = {"validator": validator, "total": total}
        temporary.write_text(json.dumps(content), encoding="utf-8")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
