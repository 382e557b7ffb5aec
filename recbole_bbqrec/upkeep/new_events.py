"""Events that are folded into a run: read as ``prepare`` does, and put among the run's own."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbole_bbqrec.data.catalogue import VOCABULARY
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.loaded_run import LoadedRun
from recbole_bbqrec.prepare.atomic_files import write_lines
from recbole_bbqrec.prepare.tables.build import write_events
from recbole_bbqrec.prepare.tables.events import EventOptions, Events, read_events
from recbole_bbqrec.prepare.tables.ledger import Ledger
from recbole_bbqrec.upkeep.extended_data import link_or_copy

_DAY = 86_400.0  # seconds
#: Options of a run whose events are written here, and the values that fit what is written.
COLUMNS = {
    "USER_ID_FIELD": "user_id", "ITEM_ID_FIELD": "item_id", "TIME_FIELD": "timestamp",
    "REAL_TIME_FIELD": "unix_time", "field_separator": "\t",
}  # fmt: skip
_NAMED = 5  # unknown items that a message names


@dataclass(frozen=True)
class Counts:
    """Numbers of what an update folds in.

    Attributes:
        events: new events.
        users: users of these events.
        new_users: those that the run did not have.
        older: new events before the last event that their user has in the run.
    """

    events: int
    users: int
    new_users: int
    older: int


def require_columns(path: Path, run: LoadedRun, writer: str) -> None:
    """Raise a UserError unless the run at ``path`` reads the columns that ``writer`` writes."""
    for option, expected in COLUMNS.items():
        if run.config[option] != expected:
            raise UserError(
                f"The run at {path} has `{option}` {run.config[option]!r}; {writer} writes "
                f"{expected!r}. Prepare the data with `prepare`, and run again."
            )


def read_new_events(
    path: Path, options: EventOptions, items: Collection[str], ledger: Ledger
) -> Events:
    """Read the events of a table; those with items that are not among ``items`` are left out.

    Raises:
        UserError: as :func:`~recbole_bbqrec.prepare.tables.events.read_events`; also if
            ``options.strict`` is set and an item is unknown, or if no event is left.
    """
    events = read_events(path, replace(options, user_core=1, item_core=1), ledger)
    unknown = [token for token in events.item_names if token not in items]
    known = np.array([token in items for token in events.item_names])[events.items]
    if unknown:
        shown = ", ".join(map(repr, unknown[:_NAMED])) + (", ..." if unknown[_NAMED:] else "")
        ledger.add(
            f"events of {len(unknown):,} items that the run does not have ({shown})",
            int((~known).sum()),
            fault=True,
        )
        if options.strict:
            ledger.refuse_faults()
    if not known.any():
        raise UserError(
            f"{path}: no event is left:\n{ledger.table()}\nGive the new items with --items or "
            "--features, or run `prepare` and `run` anew."
        )
    times = None if events.times is None else events.times[known]
    return replace(events, users=events.users[known], items=events.items[known], times=times)


def merge(dataset: Any, new: Events, ledger: Ledger) -> tuple[Events, Counts]:
    """Put ``new`` among the events of a run's data set: each at its time, after those of that time.

    Events that the run has already (same user, item and time) are left out. Where the run's events
    have no times, all new ones follow.

    Raises:
        UserError: the run's events have times and the new ones have none, or none is new.
    """
    old = dataset.file_events
    unit = old.day_length / _DAY  # of the run's times, in seconds
    timed = bool(old.known.any())
    if timed and new.times is None:
        raise UserError(
            "The new events have no times, and those of the run have. Name their column with "
            "--time_column."
        )
    users = [str(token) for token in dataset.field2id_token[dataset.uid_field]]
    number_of = {token: number for number, token in enumerate(users)}
    names = [new.user_names[code] for code in pd.unique(new.users)]
    begun = [token for token in names if token not in number_of]
    number_of.update({token: len(users) + place for place, token in enumerate(begun)})
    item_of = {token: number for number, token in enumerate(dataset.item_tokens)}
    user_ids = np.array([number_of.get(token, 0) for token in new.user_names])[new.users]
    item_ids = np.array([item_of.get(token, 0) for token in new.item_names])[new.items]

    table = pd.DataFrame(
        {
            "user": np.concatenate([old.users, user_ids]),
            "item": np.concatenate([old.items, item_ids]),
            "time": 0.0,
            "new": np.arange(len(old) + len(user_ids)) >= len(old),
        }
    )
    if timed:
        # A user without known times has positions for times, as `prepare` writes them.
        before = np.where(old.known, old.times, old.earlier)
        table["time"] = np.round(np.concatenate([before, np.asarray(new.times) * unit]), 6)
        twice = table.duplicated(["user", "item", "time"]) & table["new"]
        ledger.add("events that the run has already", int(twice.sum()), fault=True)
        table = table[~twice]
    count = int(table["new"].sum())
    if not count:
        raise UserError(f"There is nothing to fold in:\n{ledger.table()}\nGive newer events.")
    last = np.full(len(number_of), -np.inf)
    np.maximum.at(last, old.users, np.where(old.known, old.times, -np.inf))
    added = table[table["new"]]
    older = int((added["time"].to_numpy() < last[added["user"]]).sum()) if timed else 0
    counts = Counts(count, int(added["user"].nunique()), len(begun), older)

    table = table.sort_values(["user", "time"], kind="stable")
    merged = Events(
        table["user"].to_numpy(np.int32) - 1,
        table["item"].to_numpy(np.int32) - 1,
        [*users[1:], *begun],
        dataset.item_tokens[1:],
        new.read,
        new.columns,
        table["time"].to_numpy() if timed else None,
    )
    return merged, counts


def write_updated(source: Path, target: Path, name: str, events: Events) -> None:
    """Write the data set ``name`` in ``source`` with other ``events`` to the folder ``target``.

    ``events.item_names`` are the items in the order of their internal ids, which they keep.
    """
    target.mkdir(parents=True)
    write_events(target / f"{name}.inter", events)
    write_lines(target / f"{name}.{VOCABULARY}", events.item_names)
    for path in source.iterdir():
        if not (target / path.name).exists():
            link_or_copy(path, target / path.name)
