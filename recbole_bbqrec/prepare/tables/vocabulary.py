"""Codes of user and item tokens, and which tokens a data set can hold."""

from __future__ import annotations

import numpy as np

from recbole_bbqrec.prepare.source_files import is_token
from recbole_bbqrec.prepare.tables.files import Tokens
from recbole_bbqrec.prepare.tables.ledger import Ledger

#: Reason for leaving a row out; takes the role.
UNUSABLE = (
    "rows whose {} cannot be a token (blanks or quotes inside, or a word that means a missing "
    "value)"
)


class Vocabulary(dict[str, int]):
    """Codes of tokens, in the order in which they are first looked up; -1 for an empty one.

    Blanks around a token are no part of it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __missing__(self, token: str) -> int:
        plain = token.strip()
        if not plain:
            code = -1
        elif plain != token:
            code = self[plain]
        else:
            code = len(self.names)
            self.names.append(token)
        self[token] = code
        return code

    def encode(self, tokens: Tokens) -> np.ndarray:
        """Codes int32 of a column of tokens."""
        codes = np.fromiter(map(self.__getitem__, tokens.names), np.int32, len(tokens.names))
        if tokens.codes is None:
            return codes
        return np.append(codes, np.int32(-1))[tokens.codes]  # the last for the code -1


def what_to_do(ledger: Ledger) -> str:
    """What helps where no row is left."""
    if any(ledger.count(UNUSABLE.format(role)) for role in ("user", "item")):
        return (
            "A user or item may hold no blanks or quotes and be no word such as NA or null. "
            "Replace these (a blank by '_', say) in every file that names users or items"
        )
    return "Check the column options"


def readable(
    users: np.ndarray,
    items: np.ndarray,
    names: tuple[list[str], list[str]],
    ledger: Ledger,
) -> np.ndarray | None:
    """Events whose tokens come back unchanged from every file; None when all do.

    Args:
        users, items: int32 [n_events], codes into ``names``.
        names: raw tokens of users and of items.
        ledger: takes the counts of the others.

    Returns:
        Indices int64 [n_kept] of the events.
    """
    good = np.ones(len(users), dtype=bool)
    for role, codes, vocabulary in zip(("user", "item"), (users, items), names):
        bad = np.fromiter((not is_token(name) for name in vocabulary), bool, len(vocabulary))
        if not bad.any():
            continue
        rows = np.flatnonzero(good & bad[codes])
        if rows.size:
            ledger.add(
                UNUSABLE.format(role), rows.size, repr(vocabulary[codes[rows[0]]]), fault=True
            )
            good[rows] = False
    return None if good.all() else np.flatnonzero(good)
