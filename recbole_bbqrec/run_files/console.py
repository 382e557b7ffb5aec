"""Parts of a run that are shown, and where; the log file always has everything.

The log goes to standard error, without details such as the list of all options unless ``--verbose``
asks for them. The final block goes to standard output where ``run`` was typed; a caller in Python
finds it in the log. On a terminal, lines are folded at its width, at most 120 columns.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import re
import shutil
import sys
from collections.abc import Iterator

from recbole_bbqrec.distributed.group import is_main

_WIDEST = 120  # columns
_ESCAPE = re.compile(r"\x1b\[[0-9;]*m")  # colours take no room

#: For ``logger.info(..., extra=DETAIL)``: not for everyone who watches.
DETAIL = {"detail": True}
_BLOCK = {"final_block": True}


class Shown(enum.Enum):
    """Amount of the log that standard error shows."""

    WARNINGS = "warnings"
    NORMAL = "normal"
    DETAILS = "details"


_shown, _block_on_stdout = Shown.NORMAL, False


@contextlib.contextmanager
def show(how_much: Shown, *, block_on_stdout: bool = False) -> Iterator[None]:
    """Set what is shown of the runs in the block.

    Args:
        how_much: amount of the log.
        block_on_stdout: print the final block to standard output, not to standard error.
    """
    global _shown, _block_on_stdout
    before = _shown, _block_on_stdout
    _shown, _block_on_stdout = how_much, block_on_stdout
    try:
        yield
    finally:
        _shown, _block_on_stdout = before


def limit(handler: logging.StreamHandler) -> None:
    """Let a handler show what :func:`show` said, and fold lines on a terminal."""
    if _shown is Shown.WARNINGS:
        handler.setLevel(logging.WARNING)
    elif _shown is Shown.NORMAL:
        handler.addFilter(lambda record: not getattr(record, "detail", False))
    if _block_on_stdout:
        handler.addFilter(lambda record: not getattr(record, "final_block", False))
    if handler.stream.isatty() and handler.formatter is not None:
        handler.setFormatter(_Folding(handler.formatter))


def show_block(text: str) -> None:
    """Log the final block, and print it if :func:`show` says so; one of several processes does."""
    logging.getLogger().info(f"\n{text}", extra=_BLOCK)
    closed = sys.stdout is None
    if _block_on_stdout and is_main() and not closed:
        print(fold(text, _width()) if sys.stdout.isatty() else text)


class _Folding(logging.Formatter):
    """Folds the lines of another formatter."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        return fold(self._inner.format(record), _width())


def _width() -> int:
    return min(_WIDEST, shutil.get_terminal_size().columns)


def fold(text: str, width: int) -> str:
    """Break lines at blanks where they are longer than ``width`` columns.

    What follows a break is indented like the value of a table, or by four columns.

    >>> print(fold("  model     BBQRec on Mini, a data set", 24))
      model     BBQRec on
                Mini, a data
                set
    """
    return "\n".join(part for line in text.split("\n") for part in _folded(line, width))


def _folded(line: str, width: int) -> list[str]:
    if _columns(line) <= width:
        return [line]
    name = re.match(r" *\S+(?: \S+)* {2,}", line)
    hang = " " * (len(name[0]) if name and len(name[0]) <= width // 2 else 4)
    parts, current = [], ""
    for word in re.findall(r" *[^ ]+", line):
        if current.strip() and _columns(current + word) > width:
            parts.append(current)
            current = hang + word.lstrip()
        else:
            current += word
    return [*parts, current]


def _columns(text: str) -> int:
    return len(_ESCAPE.sub("", text))
