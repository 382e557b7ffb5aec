"""Read McAuley's reviews and metadata of 2014, line by line.

Reviews are JSON lines; metadata lines are Python literals, read with :func:`ast.literal_eval`,
which builds data only. Both are streamed: what is kept is a few fields of the items wanted. Image
features are read by :mod:`recbole_bbqrec.prepare.mcauley.images`.

Every fault is a :class:`UserError` that names the file and the line.
"""

from __future__ import annotations

import ast
import gzip
import json
import re
import warnings
import zlib
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from tqdm.auto import tqdm

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.prepare.interactions import Interaction, is_token
from recbole_bbqrec.runtime import bar_is_hidden

CORE = 5
_LONGEST_LINE = 1 << 24  # bytes; a hundred times the longest review
_FIELDS = ("title", "description", "brand", "categories")
_ASIN = re.compile(rb"""['"]asin['"]\s*:\s*['"]([^'"]*)['"]""")


class _Review(NamedTuple):
    """One line of the reviews: Unix time in seconds, ASIN."""

    time: int
    item: str


@dataclass(frozen=True)
class Reviews:
    """Contents of the reviews file.

    Attributes:
        events: users in the order of their first line, each user's events by time.
        times: Unix time of each event, in seconds.
        repeated: how many events repeat an earlier pair of user and item.
        sparse_users: how many users have fewer than :data:`CORE` events.
        sparse_items: likewise items.
    """

    events: list[Interaction]
    times: list[int]
    repeated: int
    sparse_users: int
    sparse_items: int

    @property
    def is_core(self) -> bool:
        """Return True if every user and item has :data:`CORE` events, as the file's name says."""
        return self.sparse_users == self.sparse_items == 0


@dataclass(frozen=True)
class Metadata:
    """Title, description, brand and categories (those it has) of each wanted item, in file order.

    ``lines`` are all lines of the file, ``repeated`` those that repeat a wanted item's.
    """

    items: dict[str, dict[str, Any]]
    lines: int
    repeated: int


def read_reviews(path: Path) -> Reviews:
    """Read ``reviews_<Category>_5.json.gz``.

    A user's events are sorted by ``unixReviewTime``, which is the day; those of one day by ASIN.
    That is the order of a stable sort of the public file, whose lines are sorted by ASIN, and the
    one in common use. It does not depend on the order of the file's lines.

    Raises:
        UserError: the file is absent, damaged or empty, or a line is not a review.
    """
    by_user: dict[str, list[_Review]] = {}
    for number, line in _lines(path):
        record = _parse(path, number, line)
        user, item, time = (record.get(k) for k in ("reviewerID", "asin", "unixReviewTime"))
        for key, token in (("reviewerID", user), ("asin", item)):
            if not isinstance(token, str) or not is_token(token):
                _fail(path, number, f"has {key} {_short(token)}", "a text without whitespace")
        if not isinstance(time, int) or isinstance(time, bool) or abs(time) > 1 << 40:
            _fail(path, number, f"has unixReviewTime {_short(time)}", "a whole number of seconds")
        by_user.setdefault(str(user), []).append(_Review(time, str(item)))
    if not by_user:
        raise UserError(f"{path} holds no review; expected one a line.")
    events, times = [], []
    for user, reviews in by_user.items():
        reviews.sort()
        events += [Interaction(user, r.item, order) for order, r in enumerate(reviews)]
        times += [r.time for r in reviews]
    per_item = Counter(event.item for event in events)
    return Reviews(
        events=events,
        times=times,
        repeated=len(events) - len({(event.user, event.item) for event in events}),
        sparse_users=sum(len(reviews) < CORE for reviews in by_user.values()),
        sparse_items=sum(count < CORE for count in per_item.values()),
    )


def read_metadata(path: Path, wanted: Collection[str]) -> Metadata:
    """Read ``meta_<Category>.json.gz``, of which only the lines of wanted items are parsed.

    Raises:
        UserError: the file is absent or damaged, a line is not one item's metadata, two lines
            of one wanted item differ, or there is none for any of them.
    """
    found: dict[str, tuple[int, dict[str, Any]]] = {}
    number = repeated = 0
    for number, line in _lines(path):
        # Most lines are of other items: skip them by their ASIN, unparsed.
        named = [token.decode("ascii", errors="replace") for token in _ASIN.findall(line)]
        if named and not any(token in wanted for token in named):
            continue
        record = _parse(path, number, line)
        item = record.get("asin")
        if not isinstance(item, str):
            _fail(path, number, f"has asin {_short(item)}", "a product's ASIN")
        if item not in wanted:
            continue
        kept = {key: record[key] for key in _FIELDS if key in record}
        if item in found:
            if found[item][1] != kept:
                _fail(
                    path, number, f"describes {item!r} otherwise than line {found[item][0]}",
                    "every item once",
                )  # fmt: skip
            repeated += 1
        found.setdefault(item, (number, kept))
    if not found:
        raise UserError(
            f"{path} ({number:,} lines) describes none of the {len(wanted):,} items of the "
            "reviews; expected the metadata of the same category."
        )
    return Metadata({item: kept for item, (_, kept) in found.items()}, number, repeated)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield numbered non-blank lines of a gzip file, with progress by compressed bytes."""
    try:
        bar = {"total": path.stat().st_size, "desc": path.name, "disable": bar_is_hidden()}
        with open(path, "rb") as raw, tqdm.wrapattr(raw, "read", **bar) as tracked:
            file = gzip.GzipFile(fileobj=tracked)
            number = 0
            while line := file.readline(_LONGEST_LINE + 1):
                number += 1
                if len(line) > _LONGEST_LINE:
                    _fail(path, number, "is longer than 16 MiB", "one record a line")
                if line.strip():
                    yield number, line
    except FileNotFoundError as error:
        raise UserError(f"{path} not found; expected McAuley's file of that name.") from error
    except (EOFError, OSError, zlib.error) as error:
        raise UserError(
            f"{path} cannot be read to its end ({error}); expected a gzip file. It is probably "
            "truncated: remove it and fetch it again."
        ) from error


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    """Parse one record: a JSON object or a Python literal."""
    try:
        text = line.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        _fail(path, number, f"is not UTF-8 ({error})", "one record a line", error)
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of escapes that later Pythons warn about
                record = ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
            reason = f"is no JSON object or Python literal ({type(error).__name__})"
            _fail(path, number, reason, "one record a line", error)
    if not isinstance(record, dict):
        _fail(path, number, f"holds {_short(record)}", "a table of fields")
    return record


def _fail(
    path: Path, number: int, found: str, expected: str, cause: Exception | None = None
) -> NoReturn:
    raise UserError(
        f"{path}, line {number} {found}; expected {expected}. If the file was not edited, it is "
        "damaged: remove it and fetch it again."
    ) from cause


def _short(value: object) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # too long an integer, too deep a nesting
        return f"a {type(value).__name__}"
    text = text.encode("utf-8", errors="backslashreplace").decode("utf-8")
    return text if len(text) <= 60 else text[:60] + "..."
