"""Interactions from a table of one's own: read, checked, ordered and filtered, as integer codes.

Memory: one int32 for user and item each and one 8-byte time for each event, a few 8-byte arrays
while sorting, and one string for each distinct user and item.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.prepare.tables.columns import find_column
from recbole_bbqrec.prepare.tables.files import (
    CHUNK_ROWS,
    PARQUET,
    Chunk,
    read_chunks,
    read_header,
    suffix_of,
)
from recbole_bbqrec.prepare.tables.filters import k_core, one_per_pair, without_copies
from recbole_bbqrec.prepare.tables.ledger import Ledger
from recbole_bbqrec.prepare.tables.vocabulary import Vocabulary, readable, what_to_do

REPEATS = ("keep", "first", "last")


@dataclass(frozen=True)
class EventOptions:
    """How to read a table of interactions.

    Attributes:
        user, item, time, order, rating: column names; None finds the usual ones. ``order`` is
            used instead of ``time`` when it is given. The rating is read for ``min_rating`` only.
        min_rating: leave out events rated lower; None keeps all.
        repeats: events of a user with the same item: ``keep`` all, or the ``first`` or ``last``.
        user_core, item_core: least number of events of a user and of an item.
        strict: refuse faulty rows instead of leaving them out.
        chunk_rows: rows read at a time.
    """

    user: str | None = None
    item: str | None = None
    time: str | None = None
    order: str | None = None
    rating: str | None = None
    min_rating: float | None = None
    repeats: str = "keep"
    user_core: int = 5
    item_core: int = 5
    strict: bool = False
    chunk_rows: int = CHUNK_ROWS

    def __post_init__(self) -> None:
        if self.repeats not in REPEATS:
            raise UserError(f"--repeats is {self.repeats!r}; expected one of {', '.join(REPEATS)}.")
        for name in ("user_core", "item_core"):
            if getattr(self, name) < 1:
                option = "--" + name.replace("_", "-")
                raise UserError(
                    f"{option} is {getattr(self, name)}; expected 1 (no filter) or more."
                )
        if self.time is not None and self.order is not None:
            raise UserError("--time-column and --order-column are both given; expected one.")
        if self.rating is not None and self.min_rating is None:
            raise UserError("--rating-column is given without --min-rating; give both or none.")


@dataclass
class Events:
    """Events grouped by user, each user's in time order.

    Attributes:
        users, items: int32 [n_events], codes into the names; both count up in the order in
            which users and items first occur in the file (among the events kept).
        user_names, item_names: raw tokens.
        read: rows of the file.
        columns: role to column name; ``time`` and ``order`` absent means file order.
    """

    users: np.ndarray
    items: np.ndarray
    user_names: list[str]
    item_names: list[str]
    read: int
    columns: dict[str, str]

    def positions(self) -> np.ndarray:
        """Each event's place in its user's sequence, from 0, int64 [n_events]."""
        begins = np.flatnonzero(np.diff(self.users, prepend=-1))  # [n_users]
        lengths = np.diff(begins, append=len(self.users))
        return np.arange(len(self.users)) - np.repeat(begins, lengths)


def read_events(path: Path, options: EventOptions, ledger: Ledger) -> Events:
    """Read, clean, order and filter the interactions of ``path``.

    Events are ordered by time (or the order column), those at the same time as in the file. The
    same user, item and time twice is one event recorded twice: the first is kept.

    Raises:
        UserError: the file or a column is missing or unreadable, ``strict`` and a row is faulty,
            or nothing is left.
    """
    columns = _columns(path, options)
    users, items, times, names, read = _read(path, columns, options, ledger)
    if options.strict:
        ledger.refuse_faults()
    if not len(users):
        raise UserError(
            f"{path}: none of its {read:,} rows is usable:\n{ledger.table()}\nexpected a user and "
            f"an item (and a time) in each. {what_to_do(ledger)}; columns in use: "
            + ", ".join(f"{role} {name!r}" for role, name in columns.items())
        )
    order = np.argsort(users, kind="stable") if times is None else np.lexsort((times, users))
    users, items = users[order], items[order]
    if times is not None:
        times = times[order]
        kept = without_copies(users, items, times)
        ledger.add("events recorded twice (same user, item and time)",
                   len(users) - len(kept), fault=True)  # fmt: skip
        if options.strict:
            ledger.refuse_faults()
        users, items, order = users[kept], items[kept], order[kept]
        del times
    if options.repeats != "keep":
        kept = one_per_pair(users, items, options.repeats)
        reason = f"repeated events of a user with an item (--repeats {options.repeats})"
        ledger.add(reason, len(users) - len(kept))
        users, items, order = users[kept], items[kept], order[kept]
    kept = k_core(users, items, options.user_core, options.item_core)
    _count_core(users, items, kept, options, ledger)
    if not len(kept):
        raise UserError(
            f"{path}: nothing is left of {len(users):,} events when every user must have at least "
            f"{options.user_core} and every item at least {options.item_core}. Lower --user-core "
            "and --item-core."
        )
    users, items, order = users[kept], items[kept], order[kept]
    # Codes so far follow the parser's chunks; the order of first occurrence is the file's own.
    users, user_names = _by_occurrence(users, order, names[0])
    items, item_names = _by_occurrence(items, order, names[1])
    regrouped = np.argsort(users, kind="stable")  # keeps each user's order
    return Events(users[regrouped], items[regrouped], user_names, item_names, read, columns)


def _columns(path: Path, options: EventOptions) -> dict[str, str]:
    header = read_header(path)
    found = {
        "user": find_column(path, header, "user", options.user),
        "item": find_column(path, header, "item", options.item),
    }
    if options.order is not None:
        found["order"] = find_column(path, header, "order", options.order)
    else:
        found["time"] = find_column(path, header, "time", options.time, required=False)
        if found["time"] is None:
            found["order"] = find_column(path, header, "order", None, required=False)
    if options.min_rating is not None:
        found["rating"] = find_column(path, header, "rating", options.rating)
    columns = {role: name for role, name in found.items() if name is not None}
    if len(set(columns.values())) < len(columns):
        raise UserError(f"{path}: one column has two roles: {columns}. Name a column for each.")
    return columns


def _read(
    path: Path, columns: dict[str, str], options: EventOptions, ledger: Ledger
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, tuple[list[str], list[str]], int]:
    """Codes of users and items, times, both vocabularies, and the number of rows read."""
    vocabularies = {"user": Vocabulary(), "item": Vocabulary()}
    parts: dict[str, list[np.ndarray]] = {"user": [], "item": [], "time": []}
    clock = "order" if "order" in columns else "time"
    timed = clock in columns
    numbers = {role: columns[role] for role in (clock, "rating") if role in columns}
    tokens = {role: columns[role] for role in ("user", "item")}
    read = 0
    header = read_header(path)
    dates = ("time",)
    for chunk in read_chunks(path, header, tokens, numbers, dates, options.chunk_rows):
        read += len(chunk.lines) + len(chunk.skipped)
        codes = {role: names.encode(chunk.tokens[role]) for role, names in vocabularies.items()}
        usable = _usable(path, chunk, codes, clock, options, ledger)
        for role in vocabularies:
            parts[role].append(codes[role][usable])
        if timed:
            parts["time"].append(chunk.numbers[clock].values[usable])
    users, items = (_joined(parts.pop(role), np.int32) for role in ("user", "item"))
    times = _joined(parts.pop("time"), np.int64) if timed else None
    names = (vocabularies["user"].names, vocabularies["item"].names)
    kept = readable(users, items, names, ledger)
    if kept is not None:
        users, items = users[kept], items[kept]
        times = times[kept] if times is not None else None
    return users, items, times, names, read


def _usable(
    path: Path,
    chunk: Chunk,
    codes: dict[str, np.ndarray],
    clock: str,
    options: EventOptions,
    ledger: Ledger,
) -> np.ndarray:
    """Rows int64 of the chunk that are complete; the others are counted, each once."""
    if chunk.skipped:
        ledger.add("rows with more or fewer fields than the header", len(chunk.skipped),
                   f"line {chunk.skipped[0]}", fault=True)  # fmt: skip
    usable = np.ones(len(chunk.lines), dtype=bool)
    place = "row" if suffix_of(path) in PARQUET else "line"

    def leave_out(reason: str, bad: np.ndarray, fault: bool = True) -> None:
        rows = np.flatnonzero(usable & bad)
        if rows.size:
            ledger.add(reason, rows.size, f"{place} {chunk.lines[rows[0]]}" if fault else "", fault)
            usable[rows] = False

    leave_out("rows without a user", codes["user"] < 0)
    leave_out("rows without an item", codes["item"] < 0)
    if clock in chunk.numbers:
        expected = "number or ISO 8601 date" if clock == "time" else "number"
        leave_out(f"rows whose {clock} is not a {expected}", ~chunk.numbers[clock].valid)
    if "rating" in chunk.numbers:
        rating = chunk.numbers["rating"]
        leave_out("rows whose rating is not a number", ~rating.valid)
        below = rating.values < options.min_rating
        leave_out(f"rows rated below {options.min_rating:g}", below, fault=False)
    return np.flatnonzero(usable)


def _joined(parts: list[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=dtype)


def _by_occurrence(
    codes: np.ndarray, place: np.ndarray, names: list[str]
) -> tuple[np.ndarray, list[str]]:
    """New codes int32, counted up by the least place in the file, and the names still in use."""
    first = np.full(len(names), np.iinfo(np.int64).max)  # [n_names]
    np.minimum.at(first, codes, place)
    used = np.flatnonzero(first < np.iinfo(np.int64).max)
    used = used[np.argsort(first[used])]
    new = np.full(len(names), -1, dtype=np.int32)
    new[used] = np.arange(len(used), dtype=np.int32)
    return new[codes], [names[code] for code in used]


def _count_core(
    users: np.ndarray, items: np.ndarray, kept: np.ndarray, options: EventOptions, ledger: Ledger
) -> None:
    if len(kept) == len(users):
        return
    lost = [len(np.unique(codes)) - len(np.unique(codes[kept])) for codes in (users, items)]
    ledger.add(
        f"events below the core of {options.user_core} a user and {options.item_core} an item "
        f"({lost[0]:,} users, {lost[1]:,} items)",
        len(users) - len(kept),
    )
