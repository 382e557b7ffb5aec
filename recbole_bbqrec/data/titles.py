"""Readable titles of items, from ``<Dataset>.titles.tsv``."""

from __future__ import annotations

import re
from pathlib import Path

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.reading import read_text

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def without_controls(text: str) -> str:
    """Drop control characters: a terminal would obey the escape sequences that they begin.

    A tab or an end of a line becomes a blank.
    """
    return _CONTROL.sub("", re.sub(r"[\t\r\n]", " ", text))


def read_titles(path: Path) -> dict[str, str]:
    """Return raw item token -> title; empty if there is no such file.

    Raises:
        UserError: not UTF-8, or a line is not a token, a tab and a title.
    """
    if not path.is_file():
        return {}
    kind, remedy = "lines of an item token, a tab and a title", "Correct or remove it."
    lines = read_text(path, kind, f"{remedy} Titles are optional.").split("\n")
    titles = {}
    for number, line in enumerate(lines[1:], start=2):  # after the header
        if not line.strip():
            continue
        token, tab, title = line.rstrip("\r").partition("\t")
        if not tab or not token:
            raise UserError(
                f"{path}, line {number} is {line[:60]!r}; expected an item token, a tab and a "
                "title. Correct the line, or remove the file: titles are optional."
            )
        titles[token] = without_controls(title).strip()
    return titles
