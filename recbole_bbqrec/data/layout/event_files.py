"""Making of the mapped events: an interaction file to arrays, with bounded memory.

DuckDB reads the file and numbers its tokens, out of core; NumPy does the rest on numbers. Filters,
ids and order are RecBole's.
"""

from __future__ import annotations

import glob
import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from filelock import FileLock

from recbole_bbqrec.atomic import folder_beside, sha256_of, write_text, writing
from recbole_bbqrec.data.event_times import check_times
from recbole_bbqrec.data.field_counts import check_field_counts
from recbole_bbqrec.data.layout.event_numbers import (
    ids_by_first,
    kept_events,
    order_of_users,
    parts,
    repeated_events,
)
from recbole_bbqrec.data.layout.event_store import ARRAYS, FACTS, FORMAT, EventStore, held_out
from recbole_bbqrec.data.layout.settings import inter_file, mapped_columns
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.protocols import RunConfig

_BLOCKS = 1024  # of 2,048 rows each, fetched together
_MEMORY = "2GB"  # of DuckDB; more goes to files beside the arrays
_SHOWN = 300  # characters of a message of DuckDB
_PAD = "[PAD]"
_NULLS = (  # the words that pandas, with which RecBole reads, takes for no value
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
    "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null",
)  # fmt: skip


def event_store(config: RunConfig) -> EventStore:
    """Return the mapped events of a run; make their arrays if they are absent or damaged.

    Raises:
        UserError: the interaction file is faulty, or the folder cannot be written.
    """
    source = inter_file(config)
    digest = sha256_of(source)
    folder = _root(config) / _key(config, digest)
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if folder.is_dir():
                try:
                    return EventStore.open(folder)
                except UserError as error:
                    getLogger().warning(f"{error} It is made anew now.")
                    shutil.rmtree(folder)
            getLogger().info(f"Mapping the events of {source} into {folder}")
            _make(config, source, digest, folder)
    return EventStore.open(folder)


def _root(config: RunConfig) -> Path:
    named = config["mapped_folder"]
    return Path(named) if named else Path(config["data_path"]).absolute().parent / ".mapped"


def _key(config: RunConfig, digest: str) -> str:
    options = {key: config[key] for key in (
        "USER_ID_FIELD", "ITEM_ID_FIELD", "TIME_FIELD", "REAL_TIME_FIELD", "field_separator",
        "user_inter_num_interval", "item_inter_num_interval",
    )}  # fmt: skip
    text = json.dumps({"format": FORMAT, "file": digest, **options}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _make(config: RunConfig, source: Path, digest: str, folder: Path) -> None:
    """Write the arrays to a temporary folder, which then becomes ``folder``."""
    check_field_counts(config)
    with folder_beside(folder) as work:
        facts = _write_arrays(config, source, work)
        if sha256_of(source) != digest:
            raise UserError(f"{source} has changed while it was read. Run again.")
        facts["sha256"] = {name: sha256_of(work / f"{name}.npy") for name in ARRAYS}
        write_text(work / FACTS, json.dumps({"format": FORMAT, **facts}, indent=1) + "\n")
        work.rename(folder)


@dataclass
class _Events:
    """Events in the order of the file: codes int32 [n], -1 for none, and times float64 [n]."""

    users: np.ndarray
    items: np.ndarray
    positions: np.ndarray  # what orders them
    times: np.ndarray  # real times

    def keep(self, mask: np.ndarray) -> None:
        """Drop the events where ``mask``, bool [n], is False."""
        same = self.times is self.positions
        for name in ("users", "items", "positions"):
            setattr(self, name, getattr(self, name)[mask])
        self.times = self.positions if same else self.times[mask]


def _write_arrays(config: RunConfig, source: Path, work: Path) -> dict[str, Any]:
    database: Any = duckdb.connect(str(work / "tokens.db"))
    try:
        database.execute("SET threads = 1; SET enable_progress_bar = false")
        database.execute(f"SET memory_limit = '{_MEMORY}'; SET temp_directory = '{work}'")
        _load(database, config, source)
        events = _numbered(database)
        missing = int((events.users < 0).sum())
        if missing:
            getLogger().warning(f"{source}: {missing:,} events have no user or no item; left out")
        intervals = [config[f"{kind}_inter_num_interval"] for kind in ("user", "item")]
        events.keep(kept_events((events.users, events.items), intervals))
        if len(events.users) == 0:
            raise UserError(
                f"Data set `{config['dataset']}` is empty after filtering: "
                f"`user_inter_num_interval` is {intervals[0]} and `item_inter_num_interval` "
                f"{intervals[1]}. Widen them, or check the files."
            )
        for kind in ("users", "items"):
            codes = getattr(events, kind)
            n_codes = database.execute(f"SELECT count(*) FROM {kind}").fetchone()[0]
            new = ids_by_first(codes, n_codes)
            _write_tokens(database, kind, new, work / f"{kind[:-1]}_tokens.npy")
            for part in parts(len(codes)):
                codes[part] = new[codes[part]]
    except duckdb.Error as error:
        reason = " ".join(str(error).split())[:_SHOWN]
        raise UserError(
            f"{source} cannot be mapped into {work.parent}: {reason}. Make room there, or name "
            "another folder with --mapped_folder."
        ) from error
    finally:
        database.close()
        for path in work.glob("tokens.db*"):
            path.unlink()
    return _write_sorted(events, work)


# reading and numbering --------------------------------------------------------------------------


def _load(database: Any, config: RunConfig, source: Path) -> None:
    """Make the table ``lines``: users, items, position and time, in the order of the file.

    Raises:
        UserError: a time is no finite number, or DuckDB cannot read the file.
    """
    header = mapped_columns(config)
    user, item, time = (config[f"{kind}_FIELD"] for kind in ("USER_ID", "ITEM_ID", "TIME"))
    real = config["REAL_TIME_FIELD"]
    real = real if header.get(real) == f"{real}:float" else time
    place = {name: f"c{number}" for number, name in enumerate(header)}
    types = dict.fromkeys(place.values(), "VARCHAR")
    types.update({place[time]: "DOUBLE", place[real]: "DOUBLE"})
    problem: object = "a time is not a finite number"
    try:
        database.execute(
            f"CREATE TABLE lines AS SELECT {place[user]} AS users, {place[item]} AS items, "
            f"{place[time]} AS position, {place[real]} AS time FROM read_csv($path, "
            "auto_detect = false, header = true, delim = $separator, quote = '\"', "
            "escape = '\"', columns = $types, nullstr = $nulls)",
            {
                "path": glob.escape(str(source)), "separator": config["field_separator"],
                "types": types, "nulls": list(_NULLS),
            },
        )  # fmt: skip
        faulty = database.execute(
            "SELECT count(*) FROM lines WHERE NOT coalesce(isfinite(position) AND isfinite(time), "
            "false)"
        ).fetchone()[0]
    except duckdb.Error as error:
        faulty, problem = 1, " ".join(str(error).split())[:_SHOWN]
    if faulty:
        check_times(config)  # names the line
        raise UserError(f"{source} cannot be mapped: {problem}. Use --data_layout=recbole.")


def _numbered(database: Any) -> _Events:
    """Replace tokens by codes in the order in which they first appear."""
    for kind in ("users", "items"):
        database.execute(
            f"CREATE TABLE {kind} AS SELECT {kind} AS token, (row_number() OVER "
            f"(ORDER BY min(rowid)) - 1)::INTEGER AS code FROM lines WHERE {kind} IS NOT NULL "
            f"GROUP BY {kind}"
        )
    n, one_time = database.execute(
        "SELECT count(*), coalesce(bool_and(position = time), true) FROM lines"
    ).fetchone()
    codes = [np.full(n, -1, dtype=np.int32) for _ in range(2)]
    positions = np.zeros(n)
    times = positions if one_time else np.zeros(n)
    rows = database.execute(
        "SELECT l.rowid AS row, u.code AS user, i.code AS item, position, time FROM lines l "
        "JOIN users u ON l.users = u.token JOIN items i ON l.items = i.token"
    )
    for frame in _frames(rows):
        row = frame["row"].to_numpy()
        codes[0][row], codes[1][row] = frame["user"].to_numpy(), frame["item"].to_numpy()
        positions[row] = frame["position"].to_numpy()
        if not one_time:
            times[row] = frame["time"].to_numpy()
    return _Events(codes[0], codes[1], positions, times)


def _frames(rows: Any) -> Iterator[Any]:
    """Yield the result of a query as tables of :data:`_BLOCKS` blocks."""
    while len(frame := rows.fetch_df_chunk(_BLOCKS)):
        yield frame


def _write_tokens(database: Any, kind: str, new: np.ndarray, path: Path) -> None:
    """Write the tokens by internal id; ``new`` int32 [n_codes] has the ids by code, 0 for none."""
    longest = database.execute(f"SELECT max(length(token)) FROM {kind}").fetchone()[0]
    width = max(longest, len(_PAD))
    tokens = np.lib.format.open_memmap(
        path, mode="w+", dtype=f"<U{width}", shape=(int(new.max()) + 1,)
    )
    tokens[0] = _PAD
    for frame in _frames(database.execute(f"SELECT code, token FROM {kind}")):
        ids = new[frame["code"].to_numpy()]
        tokens[ids[ids > 0]] = frame["token"].to_numpy()[ids > 0]
    tokens.flush()


# order ------------------------------------------------------------------------------------------


def _write_sorted(events: _Events, work: Path) -> dict[str, Any]:
    """Write the arrays of events with internal ids, in the order of each user."""
    order = np.lexsort((events.positions, events.users))  # stable, as RecBole's sort is
    users, items, positions = (a[order] for a in (events.users, events.items, events.positions))
    times = positions if events.times is events.positions else events.times[order]
    counts = np.bincount(users)[1:]
    offsets = np.r_[0, np.cumsum(counts)]
    _save(work, items=items, offsets=offsets, times=times)
    trained = np.ones(len(items), dtype=bool)
    out = held_out(counts)
    trained[offsets[1:][out > 0] - 1] = False
    trained[offsets[1:][out > 1] - 2] = False
    trained[offsets[:-1][counts == 1]] = False  # RecBole has no row of a single event
    _save(work, train_items=items[trained], order=order_of_users(positions, offsets))
    repeated = repeated_events(users, items, positions, order)
    sizes = {"events": len(items), "users": len(counts), "items": int(items.max())}
    return {**sizes, "repeated": repeated}


def _save(work: Path, **arrays: np.ndarray) -> None:
    for name, array in arrays.items():
        with writing(work / f"{name}.npy"):
            np.save(work / f"{name}.npy", array)
