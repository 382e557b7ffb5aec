"""Times of events: present, finite, and different where they differ in the file.

RecBole gives an event without a time the mean of all, and turns times that are not declared as
numbers into codes. It sorts a user's events by a float32 column, whose steps near today's Unix time
are 128 seconds: events closer than that would stay in the order of the file. The held-out items
depend on all of this.
"""

from __future__ import annotations

from logging import getLogger
from pathlib import Path

import numpy as np
import pandas as pd

from recbole_bbqrec.data.loaded_columns import header_columns, is_loaded
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.protocols import ItemDataset, RunConfig

EXACT_IN_FLOAT32 = 1 << 24  # whole numbers up to here are exact in float32


def check_times(config: RunConfig) -> None:
    """Check the time column of the interaction files, before RecBole reads them.

    Raises:
        UserError: it is not declared as float, or an event has no time or one that is not finite.
    """
    folder, name = Path(config["data_path"]), config["dataset"]
    parts = [f"{part}." for part in config["benchmark_filename"] or ()] or [""]
    for path in (folder / f"{name}.{part}inter" for part in parts):
        if path.is_file():
            _check_file(path, config)


def _check_file(path: Path, config: RunConfig) -> None:
    field, separator, encoding = (
        config[key] for key in ("TIME_FIELD", "field_separator", "encoding")
    )
    header = header_columns(path, separator, encoding) or {}  # RecBole reports what is wrong
    if field not in header or not is_loaded(
        field, "inter", config["load_col"], config["unload_col"]
    ):
        return
    column = header[field]
    if column != f"{field}:float":
        raise UserError(
            f"{path} declares its times as `{column}`; expected `{field}:float`. Times are "
            "numbers that grow; write them so."
        )
    if field in (config["val_interval"] or {}):
        return  # events without a time are filtered out
    options = {"sep": separator, "usecols": [column], "encoding": encoding}
    try:
        numbers = pd.read_csv(path, dtype=np.float64, **options)[column].to_numpy()
        if np.isfinite(numbers).all():
            return
    except ValueError:
        pass
    try:
        times = pd.read_csv(path, dtype=str, **options)[column]  # slower: for the message alone
    except ValueError:
        return  # RecBole reports what is wrong with the rows
    bad = np.flatnonzero(~np.isfinite(pd.to_numeric(times, errors="coerce").to_numpy(float)))
    if len(bad) == 0:
        return
    value = times.iloc[bad[0]]
    shown = "nothing" if pd.isna(value) else repr(value)
    raise UserError(
        f"{path}: {len(bad):,} of {len(times):,} events have no time that is a finite number; the "
        f"first is event {bad[0] + 1} with {shown} in `{column}`. Complete them, or remove these "
        "events."
    )


def check_has_times(config: RunConfig, dataset: ItemDataset) -> None:
    """Raise a UserError if a data set has no times; RecBole would fail when it sorts."""
    if config["benchmark_filename"] or dataset.time_field in dataset.inter_feat:
        return
    path = Path(config["data_path"]) / f"{config['dataset']}.inter"
    name = dataset.time_field or "timestamp"
    raise UserError(
        f"Data set `{config['dataset']}` has no times: {path} was read with the columns "
        f"{', '.join(dataset.inter_feat)}; expected a column {name}:float in its header (option "
        "`TIME_FIELD`) and in the option `load_col`."
    )


def keep_order(dataset: ItemDataset) -> None:
    """Make the times of a data set that is not yet built safe to sort as float32.

    Times that float32 can tell apart stay as they are. Otherwise each becomes its rank among the
    times of the data set, or of its user if there are too many for float32. Equal times stay equal.
    """
    field, frame = dataset.time_field, dataset.inter_feat
    if field is None or field not in frame or frame[field].dtype != np.float64:
        return
    times = frame[field]
    distinct = np.unique(times.to_numpy())
    if len(np.unique(distinct.astype(np.float32))) == len(distinct):
        return
    by_user = len(distinct) > EXACT_IN_FLOAT32 and dataset.uid_field is not None
    ranked = times.groupby(frame[dataset.uid_field]) if by_user else times
    frame[field] = ranked.rank(method="dense").astype(np.float64)
    getLogger().info(
        f"`{field}`: {len(distinct):,} times, too close to each other for float32; their order "
        "is used in their place"
    )
