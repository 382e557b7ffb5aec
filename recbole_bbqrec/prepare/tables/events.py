"""Interactions from a table of one's own: read, checked, ordered and filtered, as integer codes.

Memory: DuckDB's limit while it reads and sorts, then one int32 for user and item each and one
uint32 for the row of each event, and one string for each distinct user and item.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.prepare.interactions import are_plain_tokens, is_token
from recbole_bbqrec.prepare.tables.cells import number_cell, seconds, time_cell, token_cell
from recbole_bbqrec.prepare.tables.columns import find_column
from recbole_bbqrec.prepare.tables.core import LeftOut, count_core, k_core
from recbole_bbqrec.prepare.tables.ledger import Ledger
from recbole_bbqrec.prepare.tables.query import Table

REPEATS = ("keep", "first", "last")
_NO_TIME = "rows whose time is not a number or ISO 8601 date"
_UNUSABLE = (
    "rows whose {} cannot be a token (quotes or control characters inside, or a word for a missing "
    "value)"
)


@dataclass(frozen=True)
class EventOptions:
    """Columns, filters and cores for reading a table of interactions.

    Attributes:
        user, item, time, order, rating: column names; None finds the usual ones. ``order`` is
            used instead of ``time`` when it is given. The rating is read for ``min_rating`` only.
        min_rating: leave out events rated lower; None keeps all.
        repeats: events of a user with the same item: ``keep`` all, or the ``first`` or ``last``.
        user_core, item_core: smallest number of events of a user and of an item.
        strict: refuse faulty rows instead of leaving them out.
        time_format: how times are written, as of Python's strptime; None: numbers or ISO 8601.
        separator: what divides the columns; None: by the suffix of the file.
        no_header: the first row is data, and the columns are 1, 2, ...
        keep_all_items: items below the core stay in the catalogue; their events are kept apart.
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
    time_format: str | None = None
    separator: str | None = None
    no_header: bool = False
    keep_all_items: bool = False

    def __post_init__(self) -> None:
        if self.repeats not in REPEATS:
            raise UserError(f"--repeats is {self.repeats!r}; expected one of {', '.join(REPEATS)}.")
        for name in ("user_core", "item_core"):
            if getattr(self, name) < 1:
                raise UserError(
                    f"--{name} is {getattr(self, name)}; expected 1 (no filter) or more."
                )
        if self.time is not None and self.order is not None:
            raise UserError("--time_column and --order_column are both given; expected one.")
        if self.rating is not None and self.min_rating is None:
            raise UserError("--rating_column is given without --min_rating; give both or none.")


@dataclass
class Events:
    """Events grouped by user, each user's in time order.

    Attributes:
        users, items: int32 [n_events], codes into the names; both count up in the order in
            which users and items first occur in the file (among the events kept).
        user_names, item_names: raw tokens.
        read: rows of the file.
        columns: role to column name; ``time`` and ``order`` absent means file order.
        times: float64 [n_events], in seconds; None without a column of times.
        other_items: raw tokens of items without an event left, if they are kept.
        left_out: events with these, if they are kept; they are no part of any history.
    """

    users: np.ndarray
    items: np.ndarray
    user_names: list[str]
    item_names: list[str]
    read: int
    columns: dict[str, str]
    times: np.ndarray | None = None
    other_items: tuple[str, ...] = ()
    left_out: LeftOut | None = None

    def positions(self) -> np.ndarray:
        """Return each event's place in its user's sequence, from 0, int64 [n_events]."""
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
    with Table(path, options.separator, not options.no_header) as table:
        if table.json_lines:
            table.read_keys()
        columns = _columns(table, options)
        names, read, unit = _load(table, columns, options, ledger)
        users, items, rows, times = _sorted(
            table, "time" in columns or "order" in columns, options, ledger
        )
    kept = k_core(users, items, options.user_core, options.item_core)
    count_core(users, items, kept, (options.user_core, options.item_core), ledger)
    if not len(kept):
        raise UserError(
            f"{path}: nothing is left of {len(users):,} events when every user must have at least "
            f"{options.user_core} and every item at least {options.item_core}. Lower --user_core "
            f"and --item_core.\n{ledger.table()}"
        )
    left_out = None
    if options.keep_all_items:
        left_out = LeftOut.of(users, items, kept, names["user"], names["item"])
    users, items, rows = users[kept], items[kept], rows[kept]
    users, user_names = _by_occurrence(users, rows, names["user"])
    items, item_names = _by_occurrence(items, rows, names["item"])
    regrouped = np.argsort(users, kind="stable")  # keeps each user's order
    real = seconds(times[kept][regrouped], unit) if "time" in columns else None
    lost = set(names["item"]) - set(item_names) if options.keep_all_items else ()
    others, users, items = tuple(sorted(filter(is_token, lost))), users[regrouped], items[regrouped]
    return Events(users, items, user_names, item_names, read, columns, real, others, left_out)


def _columns(table: Table, options: EventOptions) -> dict[str, str]:
    path, header = table.path, table.header
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


def _load(
    table: Table, columns: dict[str, str], options: EventOptions, ledger: Ledger
) -> tuple[dict[str, list[str]], int, float | None]:
    """Make the table ``checked`` of all rows; return names by code, rows read, and unit of time.

    Its columns: row, user and item (codes), time (double) and rest, which see :func:`time_cell`.
    """
    clock = next((role for role in ("order", "time") if role in columns), None)
    time, rest, unit = "0", "0", None
    if clock is not None:
        time, rest, unit = time_cell(table, columns[clock], clock == "time", options.time_format)
    rating = number_cell(table, columns["rating"]) if "rating" in columns else "NULL"
    cells = {role: token_cell(table, columns[role]) for role in ("user", "item")}
    table.load({**cells, "time": time, "rest": rest, "rating": rating})
    names = {role: _number_tokens(table, role) for role in ("user", "item")}
    reasons = _reasons(columns, clock, options)
    cases = " ".join(f"WHEN {reason[0]} THEN {code}" for code, reason in enumerate(reasons))
    table.query(
        "CREATE TABLE checked AS SELECT row, users.code AS user, items.code AS item, time, rest, "
        f"(CASE {cases} END)::UTINYINT AS reason FROM cells "
        "LEFT JOIN users ON users.cell = cells.user LEFT JOIN items ON items.cell = cells.item"
    )
    table.query("DROP TABLE cells")
    ledger.add("rows with more or fewer fields than the header", len(table.skipped),
               f"line {(table.skipped or [0])[0]}", fault=True)  # fmt: skip
    counts = table.query(
        "SELECT reason, count(*), min(row), arg_min(user, row), arg_min(item, row) FROM checked "
        "GROUP BY reason ORDER BY reason NULLS LAST"
    ).fetchall()
    read, usable = len(table.skipped), 0
    for code, count, row, user, item in counts:
        read += count
        if code is None:
            usable = count
            continue
        _, reason, fault = reasons[code]
        first = table.place(row) if fault else ""
        for role, name in (("user", user), ("item", item)):
            if reason == _UNUSABLE.format(role):
                first = repr(names[role][name])
        ledger.add(reason, count, first, fault)
    if options.strict:
        ledger.refuse_faults()
    table.check_has_rows(read)
    if not usable:
        raise UserError(
            f"{table.path}: none of its {read:,} rows is usable:\n{ledger.table()}\nexpected a "
            f"user and an item (and a time) in each. {_remedy(ledger)}; columns in use: "
            + ", ".join(f"{role} {name!r}" for role, name in columns.items())
        )
    return names, read, unit


def _reasons(
    columns: dict[str, str], clock: str | None, options: EventOptions
) -> list[tuple[str, str, bool]]:
    """Return why rows are left out: condition, words, and whether it is a fault.

    Each row is counted for the first reason that it meets.
    """
    reasons = [("users.code IS NULL", "rows without a user", True)]
    reasons += [("items.code IS NULL", "rows without an item", True)]
    if clock is not None:
        form = options.time_format
        timed = _NO_TIME if form is None else f"rows whose time is not a date as {form}"
        reason = timed if clock == "time" else "rows whose order is not a number"
        reasons.append(("isfinite(time) IS NOT TRUE", reason, True))
    if "rating" in columns:
        low = f"rows rated below {options.min_rating:g}"
        reasons += [
            ("isfinite(rating) IS NOT TRUE", "rows whose rating is not a number", True),
            (f"rating < {float(options.min_rating or 0)!r}::DOUBLE", low, False),
        ]
    reasons += [(f"NOT {role}s.usable", _UNUSABLE.format(role), True) for role in ("user", "item")]
    return reasons


def _number_tokens(table: Table, role: str) -> list[str]:
    """Make the table ``users`` or ``items``: cell, code and whether RecBole can read the token.

    Blanks around a token are no part of it. Returns tokens by code.
    """
    cells = table.query(f"SELECT DISTINCT {role} AS cell FROM cells WHERE {role} IS NOT NULL")
    column = cells.fetchnumpy()["cell"]
    names: list[str] = column.tolist()
    if are_plain_tokens(names):
        rows = pd.DataFrame({"cell": column, "code": np.arange(len(names), dtype=np.int32)})
        table.create(f"{role}s", rows.assign(usable=True))
        return names
    codes: dict[str, int] = {}
    numbers = [codes.setdefault(token, len(codes)) for token in map(str.strip, column)]
    usable = np.fromiter(map(is_token, codes), bool, len(codes))
    rows = pd.DataFrame({"cell": column, "code": np.array(numbers, dtype=np.int32)})
    rows["usable"] = usable[rows["code"]]
    table.create(f"{role}s", rows[rows["code"] != codes.get("", -1)])
    return list(codes)


def _sorted(
    table: Table, timed: bool, options: EventOptions, ledger: Ledger
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return users, items (int32), rows (uint32) and times (float64) [n_events].

    They are sorted by user, time and row. Events recorded twice and repeats that the options
    exclude are left out and counted.
    """
    columns = table.query(
        "SELECT user, item, row, time::DOUBLE AS time, rest FROM checked WHERE reason IS NULL "
        "ORDER BY user, time, rest, row"
    ).fetchnumpy()
    users, items, times = columns["user"], columns["item"], columns["time"]
    kept = np.ones(len(users), dtype=bool)  # [n_events]
    if timed:
        kept[_recorded_before(users, items, times, columns["rest"])] = False
        twice = len(kept) - int(kept.sum())
        ledger.add("events recorded twice (same user, item and time)", twice, fault=True)
    if options.strict:
        ledger.refuse_faults()
    if options.repeats != "keep":
        once = np.flatnonzero(kept)
        if options.repeats == "last":
            once = once[::-1]
        pairs = users[once].astype(np.int64) << 32 | items[once]
        kept[:] = False
        kept[once[np.unique(pairs, return_index=True)[1]]] = True
        reason = f"repeated events of a user with an item (--repeats {options.repeats})"
        ledger.add(reason, len(once) - int(kept.sum()))
    if kept.all():
        return users, items, columns["row"], times
    return users[kept], items[kept], columns["row"][kept], times[kept]


def _recorded_before(
    users: np.ndarray, items: np.ndarray, times: np.ndarray, rests: np.ndarray
) -> np.ndarray:
    """Return the events, sorted by user and time, whose item the user has at the same time before.

    int64 [n_found], indices of the events; few are at a time that another one has.
    """
    same = np.diff(users) == 0  # [n_events - 1], with the event before
    same &= np.diff(times) == 0
    same &= np.diff(rests) == 0
    shared = np.zeros(len(users), dtype=bool)
    shared[1:] = same
    shared[:-1] |= same
    rows = np.flatnonzero(shared)
    moments = np.cumsum(~np.concatenate([[False], same])[rows])
    order = np.lexsort((items[rows], moments))  # stable: the first of the file comes first
    moments, items, rows = moments[order], items[rows][order], rows[order]
    again = (np.diff(moments) == 0) & (np.diff(items) == 0)
    found: np.ndarray = rows[1:][again]
    return found


def _remedy(ledger: Ledger) -> str:
    """Return what helps where no row is usable."""
    if any(ledger.count(_UNUSABLE.format(role)) for role in ("user", "item")):
        return (
            "A user or item may hold no quotes, tabs or double blanks and be no word such as NA or "
            "null. Replace these (a quote by '_', say) in every file that names users or items"
        )
    if ledger.count(_NO_TIME):
        return "Say how times are written, such as --time_format=%m/%d/%Y, or check --time_column"
    return "Check the column options"


def _by_occurrence(
    codes: np.ndarray, rows: np.ndarray, names: list[str]
) -> tuple[np.ndarray, list[str]]:
    """Return new codes int32, by the first row of each, and the names still in use."""
    unused = np.iinfo(rows.dtype).max
    first = np.full(len(names), unused, dtype=rows.dtype)  # [n_names]
    np.minimum.at(first, codes, rows)
    used = np.flatnonzero(first < unused)
    used = used[np.argsort(first[used])]
    new = np.full(len(names), -1, dtype=np.int32)
    new[used] = np.arange(len(used), dtype=np.int32)
    return new[codes], [names[code] for code in used]
