"""Interactions, and the tokens of users and items that RecBole's atomic files can hold."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

# RecBole reads tokens through a tab-separated pandas parser, so they must survive it: no white
# space but single spaces between words, no quotes, and none of the words that pandas takes for a
# missing value. [PAD] is RecBole's own name for item 0.
_TOKEN = re.compile(r'[^\s"]+(?: [^\s"]+)*')
_MISSING_WORDS = frozenset(
    ("NA", "N/A", "n/a", "nan", "NaN", "-nan", "-NaN", "NULL", "null", "None", "<NA>", "#N/A",
     "[PAD]", "#NA", "#N/A N/A", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN")
)  # fmt: skip


# Text of the characters that a token may have anywhere: printable ASCII but blanks and quotes.
_PLAIN = re.compile(r"[!#-~]+")


class Interaction(NamedTuple):
    """One event: raw user and item tokens and the 0-based position in the user's sequence."""

    user: str
    item: str
    order: int


def is_token(text: str) -> bool:
    """Return True if RecBole's reader gives ``text`` back unchanged as a user or item token."""
    # Unprintable text holds control characters, or surrogates that UTF-8 cannot encode.
    return bool(_TOKEN.fullmatch(text)) and text.isprintable() and text not in _MISSING_WORDS


def are_plain_tokens(texts: Sequence[str]) -> bool:
    """Return True if all are tokens of printable ASCII without blanks; a fast test of very many."""
    if not _MISSING_WORDS.isdisjoint(texts) or "" in texts:
        return False
    return bool(_PLAIN.fullmatch("".join(texts)))
