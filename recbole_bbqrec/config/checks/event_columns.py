"""Check that the interaction files have the columns that the options name.

RecBole skips a column of `load_col` that a file does not have, and goes on without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recbole.config import Config

from recbole_bbqrec.config.checks.intervals import are_intervals
from recbole_bbqrec.data.loaded_columns import header_columns, is_loaded
from recbole_bbqrec.errors import UserError, did_you_mean


def check_event_columns(config: Config) -> None:
    """Check the header of each interaction file that is there.

    Raises:
        UserError: it lacks the users, the items or a column that the user's `load_col` names; or
            `val_interval` does not fit the type of a column.
    """
    folder, name = Path(config["data_path"]), config["dataset"]
    given = config["benchmark_filename"]
    if given is not None and len(given) not in (2, 3):
        raise UserError(
            f"Option `benchmark_filename` is {given!r}; expected the names of three files, for "
            "training, validation and test, such as [train, valid, test], or of two, without "
            "validation."
        )
    parts = [f"{part}." for part in config["benchmark_filename"] or ()] or [""]
    for path in (folder / f"{name}.{part}inter" for part in parts):
        header = header_columns(path, config["field_separator"], config["encoding"])
        if header:
            _check_header(path, header, config)
            if config["benchmark_filename"]:
                _check_split_file(path, header, config)


def _check_header(path: Path, header: Mapping[str, str], config: Config) -> None:
    for option in ("USER_ID_FIELD", "ITEM_ID_FIELD"):
        if config[option] not in header:
            raise _absent(path, header, config[option], option)
    load_col = config["load_col"]
    for option in ("USER_ID_FIELD", "ITEM_ID_FIELD"):
        if not is_loaded(config[option], "inter", load_col, config["unload_col"]):
            raise UserError(
                f"Option `load_col` is {load_col!r}; expected the column `{config[option]}` of "
                f"`{option}` among those of `inter`."
            )
    if "load_col" in config.external_config_dict and isinstance(load_col, Mapping):
        columns = load_col.get("inter", ())
        for column in () if columns == "*" else columns:
            if column not in header and column != config["TIME_FIELD"]:  # see event_times
                raise _absent(path, header, column, "load_col")
    for column, values in (config["val_interval"] or {}).items():
        kind = header.get(column, "").rpartition(":")[2]
        if kind.startswith("float") and not are_intervals(values):
            expected = "intervals such as [3,5]"
        elif kind.startswith("token") and isinstance(values, str):
            expected = "a list of the values to keep"
        else:
            continue
        raise UserError(
            f"Option `val_interval.{column}` is {values!r}; expected {expected}: {path} declares "
            f"the column as {header[column]}."
        )


def _check_split_file(path: Path, header: Mapping[str, str], config: Config) -> None:
    """Check a file that is split already: its rows hold a history and the item after it."""
    item, events = config["ITEM_ID_FIELD"], config["dataset"]
    history = f"{item}{config['LIST_SUFFIX']}"
    if history not in header:
        raise UserError(
            f"{path} has no column `{history}`; its header is {', '.join(header.values())}. "
            f"Expected, for `benchmark_filename`, a history and the item after it in each row "
            f"({history}:token_seq, {item}:token). Files of single events go into one "
            f"{events}.inter, with their times, which is split then."
        )
    if not is_loaded(history, "inter", config["load_col"], config["unload_col"]):
        raise UserError(
            f"Option `load_col` is {config['load_col']!r}; expected the column `{history}` of "
            f"{path} among those of `inter`: --load_col=\"{{'inter':['{config['USER_ID_FIELD']}',"
            f"'{item}','{history}']}}\"."
        )
    alias = config["alias_of_item_id"]
    if history not in (alias or ()):
        raise UserError(
            f"Option `alias_of_item_id` is {alias!r}; expected [{history}]: without it the items "
            f"of the histories in {path} have other numbers than the items after them."
        )


def _absent(path: Path, header: Mapping[str, Any], column: str, option: str) -> UserError:
    return UserError(
        f"{path} has no column `{column}`, which `{option}` names; its header is "
        f"{', '.join(header.values())}.{did_you_mean(column, header)} Correct `{option}`, or the "
        "header (name:type, such as user_id:token, divided by `field_separator`)."
    )
