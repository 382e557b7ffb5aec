"""Filter of what the terminal shows of a run's log; the log file always has everything.

Lines are folded at the width of the terminal, at most 120 columns. Details, such as the list of
all options, are for the file and for ``--verbose``.
"""

from __future__ import annotations

import enum
import logging
import re
import shutil

_WIDEST = 120  # columns
_ESCAPE = re.compile(r"\x1b\[[0-9;]*m")  # colours take no room

#: For ``logger.info(..., extra=DETAIL)``: not for everyone who watches.
DETAIL = {"detail": True}


class Shown(enum.Enum):
    """Amount of the log that the terminal shows."""

    WARNINGS = "warnings"
    NORMAL = "normal"
    DETAILS = "details"


_shown = Shown.NORMAL


def show(how_much: Shown) -> None:
    """Set what the terminal shows of the runs that this process starts from now on."""
    global _shown
    _shown = how_much


def limit(handler: logging.StreamHandler) -> None:
    """Let a handler show what :func:`show` said, and fold lines on a terminal."""
    on_terminal = handler.stream.isatty()
    if _shown is Shown.WARNINGS:
        handler.setLevel(logging.WARNING)
    elif on_terminal and _shown is Shown.NORMAL:
        handler.addFilter(lambda record: not getattr(record, "detail", False))
    if on_terminal and handler.formatter is not None:
        handler.setFormatter(_Folding(handler.formatter))


class _Folding(logging.Formatter):
    """Folds the lines of another formatter."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        width = min(_WIDEST, shutil.get_terminal_size().columns)
        return fold(self._inner.format(record), width)


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
