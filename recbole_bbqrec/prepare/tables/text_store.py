"""Sequence of texts on disk, for catalogues whose texts do not fit in memory."""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload


class TextStore(Sequence[str]):
    """Texts in an unnamed file, 8 bytes of memory each; a context manager that removes it.

    Args:
        folder: folder of the file.
    """

    def __init__(self, folder: Path) -> None:
        self._file: Any = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - open as long as self
        self._begins = array("q", [0])

    def __enter__(self) -> TextStore:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, text: str) -> None:
        """Add a text at the end; not after texts have been read."""
        content = text.encode("utf-8", errors="replace")
        self._file.write(content)
        self._begins.append(self._begins[-1] + len(content))

    def __len__(self) -> int:
        return len(self._begins) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        self._file.seek(self._begins[number])
        return self._file.read(self._begins[number + 1] - self._begins[number]).decode("utf-8")

    def __iter__(self) -> Iterator[str]:
        self._file.seek(0)
        for begin, end in zip(self._begins, self._begins[1:]):
            yield self._file.read(end - begin).decode("utf-8")
