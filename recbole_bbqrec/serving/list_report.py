"""Counts of lists that were written, and of users and items that the run does not know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recbole_bbqrec.answers.filters import first_of
from recbole_bbqrec.errors import UserError

_NAMED = 20  # unknown tokens kept for the report


@dataclass
class ListReport:
    """Counts of lists written and left out; ``unknown`` counts the tokens of each kind."""

    users: int = 0
    rows: int = 0
    short: int = 0  # users for whom fewer than topk items are allowed
    popular: int = 0  # users without anything to go by, who get the most popular items
    left_out: int = 0  # users without anything to go by
    left_out_users: list[str] = field(default_factory=list)  # the first of them
    unknown: dict[str, dict[str, int]] = field(default_factory=lambda: {"user": {}, "item": {}})

    def text(self) -> str:
        """Return the report as lines."""
        lines = [f"{self.rows:,} recommendations for {self.users:,} users"]
        if self.short:
            lines.append(f"{self.short:,} users: fewer items are allowed than --topk")
        for kind, tokens in self.unknown.items():
            if tokens:
                named = ", ".join(list(tokens)[:_NAMED])
                more = ", ..." if len(tokens) > _NAMED else ""
                gone = "" if kind == "user" and self.popular else " left out"
                lines.append(f"{len(tokens):,} unknown {kind}s{gone}: {named}{more}")
        if self.popular:
            lines.append(f"{self.popular:,} users without a known item: the items with most events")
        if self.left_out:
            named = first_of(self.left_out_users)
            lines.append(f"{self.left_out:,} users have no known item or event: left out ({named})")
        return "\n".join(lines)

    def count(self, kind: str, unknown: Sequence[str], strict: bool, source: str) -> None:
        """Count the ``unknown`` users or items that ``source`` names.

        Raises:
            UserError: there is one, and ``strict``.
        """
        if unknown and strict:
            raise UserError(
                f"{source} names the unknown {kind} {unknown[0]!r}. Remove it, or leave out "
                "--strict."
            )
        _sum(self.unknown[kind], Counter(unknown))

    def add(self, part: Mapping[str, Any]) -> None:
        """Add the report of a part, as a dictionary."""
        for name in ("users", "rows", "short", "popular", "left_out"):
            setattr(self, name, getattr(self, name) + part[name])
        named = [*self.left_out_users, *part.get("left_out_users", ())]
        self.left_out_users = named[: _NAMED + 1]
        for kind, tokens in part["unknown"].items():
            _sum(self.unknown[kind], tokens)


def none_known(
    option: str, path: Path, kind: str, unknown: Sequence[str], expected: str
) -> UserError:
    """Return the error for a file of an option of which no user or item is known."""
    return UserError(
        f"--{option} is {path}: none of its {len(unknown):,} {kind}s is one of the run; the first "
        f"is {unknown[0][:60]!r}, expected {expected}. Correct the file, or leave the option out."
    )


def _sum(counts: dict[str, int], others: Mapping[str, int]) -> None:
    for token, count in others.items():
        counts[token] = counts.get(token, 0) + count
