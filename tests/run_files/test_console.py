"""Lines of a log that the terminal shows."""

from __future__ import annotations

import io
import logging

import pytest

from recbole_bbqrec.run_files import console
from recbole_bbqrec.run_files.console import DETAIL, Shown, fold


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(how_much: Shown, stream: io.StringIO) -> str:
    """Log a line of each kind and return what the stream has."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    with console.show(how_much):
        console.limit(handler)
    logger = logging.Logger("test")
    logger.addHandler(handler)
    logger.info("options", extra=DETAIL)
    logger.info("epoch 1")
    logger.warning("ties")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("how_much", "lines"),
    [
        (Shown.NORMAL, ["INFO epoch 1", "WARNING ties"]),
        (Shown.DETAILS, ["INFO options", "INFO epoch 1", "WARNING ties"]),
        (Shown.WARNINGS, ["WARNING ties"]),
    ],
)
@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
def test_what_is_shown_depends_on_no_terminal(how_much, stream, lines):
    assert shown(how_much, stream()).splitlines() == lines


@pytest.mark.parametrize("how_much", Shown)
@pytest.mark.parametrize("on_stdout", [False, True])
def test_the_final_block_is_shown_once(how_much, on_stdout, capsys, monkeypatch):
    root, stream, file = logging.getLogger(), io.StringIO(), io.StringIO()
    monkeypatch.setattr(root, "handlers", [logging.StreamHandler(s) for s in (stream, file)])
    monkeypatch.setattr(root, "level", logging.INFO)
    with console.show(how_much, block_on_stdout=on_stdout):
        console.limit(root.handlers[0])
        console.show_block("  model  BBQRec")
    logged = "" if on_stdout or how_much is Shown.WARNINGS else "\n  model  BBQRec\n"
    assert stream.getvalue() == logged and file.getvalue() == "\n  model  BBQRec\n"
    assert capsys.readouterr().out == ("  model  BBQRec\n" if on_stdout else "")


def test_long_lines_are_folded_on_a_terminal_only(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    line = "word " * 60
    for stream, longest in ((Terminal(), 120), (io.StringIO(), len(line) + 5)):
        handler = logging.StreamHandler(stream)
        handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        console.limit(handler)
        handler.emit(logging.LogRecord("", logging.INFO, "", 0, line, None, None))
        assert max(map(len, stream.getvalue().splitlines())) <= longest
        assert stream.getvalue().split() == ["INFO", *line.split()]


def test_fold_keeps_words_columns_and_colours():
    table = "  text   TF-IDF of words and word pairs, 256 dimensions"
    assert fold(table, 30).splitlines() == [
        "  text   TF-IDF of words and",
        "         word pairs, 256",
        "         dimensions",
    ]
    coloured = "\x1b[1;33mtest result\x1b[0m: short"
    assert fold(coloured, 20) == coloured
    assert fold("a" * 50, 20) == "a" * 50  # nowhere to break
    assert fold("short\nlines", 20) == "short\nlines"
