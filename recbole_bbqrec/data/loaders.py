"""RecBole's dataset and data loaders, built without its pickle caches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from logging import getLogger
from pathlib import Path
from typing import Any

from recbole.config import Config
from recbole.data.utils import create_samplers, get_dataloader

from recbole_bbqrec.data.catalogue import add_catalogue, check_tokens
from recbole_bbqrec.data.catalogue_size import check_catalogue_size
from recbole_bbqrec.data.duplicates import log_duplicates, warn_of_duplicates
from recbole_bbqrec.data.event_times import check_has_times, check_times, keep_order
from recbole_bbqrec.data.field_counts import check_field_counts
from recbole_bbqrec.data.layout.event_files import event_store
from recbole_bbqrec.data.layout.event_store import StoredEvents
from recbole_bbqrec.data.layout.mapped_split import HistoryLoader, TrainingHistories
from recbole_bbqrec.data.layout.settings import is_mapped
from recbole_bbqrec.data.loaded_columns import header_columns
from recbole_bbqrec.data.protocol.apply import build, find_events, plan_split
from recbole_bbqrec.data.protocol.events import Events, read_events
from recbole_bbqrec.data.protocol.settings import SplitSettings, split_settings
from recbole_bbqrec.data.protocol.ties import tie_statistics
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.protocols import ItemDataset


def create_dataset(config: Config, dataset_class: type) -> Any:
    """Read, filter and remap the data set, and order its events as the protocol asks.

    The data set has attributes that RecBole's lacks. For files that are split already, the first
    three are None and empty: ``file_events``, all events with their real times; ``ties`` of these;
    ``events``, those that the protocol keeps, in its order; and ``plan``, the split of the option
    `protocol` (None where RecBole splits).

    Raises:
        UserError: RecBole cannot read the files, they have no times, nothing is left after
            filtering, or the data cannot serve the protocol.
    """
    settings = split_settings(config)
    if is_mapped(config):
        return _mapped(config, dataset_class, settings)
    check_field_counts(config)
    check_times(config)
    try:
        with _real_times_loaded(config, settings.real_time_field):
            dataset = dataset_class(config)
    except (ValueError, KeyError, TypeError) as error:
        if "feat is empty" in str(error):
            raise _nothing_left(config) from error
        raise UserError(
            f"RecBole cannot read the data set `{config['dataset']}` in {config['data_path']}: "
            f"{_told(error)} Check the header of its files, and the options that name columns."
        ) from error
    check_tokens(dataset)
    add_catalogue(dataset)  # to RecBole's own data sets
    check_has_times(config, dataset)
    _check_labels(config, dataset)
    if dataset.inter_num == 0:
        raise _nothing_left(config)
    warn_of_duplicates(dataset)
    if _splits_by_global_time(config):
        _use_real_times(config, dataset, settings)
    events, dataset.ties = None, {}
    if not config["benchmark_filename"]:
        events = read_events(dataset, settings.real_time_field, settings.day_length)
        dataset.ties = tie_statistics(events, dataset.field2id_token[dataset.iid_field])
    dataset.file_events = events
    dataset.plan = plan_split(dataset, events, settings)
    dataset.events = dataset.plan.events if dataset.plan else events
    keep_order(dataset)
    return dataset


def _mapped(config: Config, dataset_class: type, settings: SplitSettings) -> Any:
    """Make the data set of mapped events."""
    store = event_store(config)
    dataset = dataset_class(config, store)
    check_tokens(dataset)
    add_catalogue(dataset)
    repeated = store.facts["repeated"]
    if repeated["count"]:
        first = repeated["user"], repeated["item"]
        log_duplicates(dataset, repeated["count"], len(store), first, repeated["time"])
    dataset.file_events = dataset.events = StoredEvents(store, settings.day_length)
    dataset.ties = tie_statistics(dataset.events, dataset.field2id_token[dataset.iid_field])
    dataset.plan = None
    return dataset


@contextmanager
def _real_times_loaded(config: Config, field: str) -> Iterator[None]:
    """Let RecBole load the column ``field`` of the interactions, too, if there is one."""
    columns = config["load_col"]
    path = Path(config["data_path"]) / f"{config['dataset']}.inter"
    header = header_columns(path, config["field_separator"], config["encoding"]) or {}
    named = isinstance(columns, Mapping) and isinstance(columns.get("inter"), (list, tuple))
    if config["benchmark_filename"] or field not in header or not named:
        yield
        return
    config["load_col"] = {**columns, "inter": list(dict.fromkeys([*columns["inter"], field]))}
    try:
        yield
    finally:
        config["load_col"] = columns


def _check_labels(config: Config, dataset: ItemDataset) -> None:
    """Raise a UserError if the evaluation reads labels and the data have none."""
    label, modes = config["LABEL_FIELD"], config["eval_args"]["mode"]
    if "labeled" in modes.values() and label not in dataset.inter_feat:
        raise UserError(
            f"Option `eval_args` has mode {modes}, and data set `{config['dataset']}` has no "
            f"labels: expected a loaded column `{label}` (option `LABEL_FIELD`), or one of which "
            "labels are made, such as --threshold=\"{'rating':4}\" with `rating` in `load_col`."
        )


def _told(error: Exception) -> str:
    """Return RecBole's message as one sentence; of a KeyError that is a bare name."""
    if isinstance(error, KeyError):
        return f"There is no `{error.args[0]}`."
    return str(error).rstrip(".") + "."


def _splits_by_global_time(config: Config) -> bool:
    """Return True if `eval_args` splits all events at once in the order of their times."""
    arguments = config["eval_args"]
    split, group_by = arguments["split"], arguments.get("group_by")
    return "TS" in split or ("RS" in split and group_by in (None, "none"))


def _use_real_times(config: Config, dataset: ItemDataset, settings: SplitSettings) -> None:
    """Sort by real times; positions would hold out the users with the longest histories.

    Raises:
        UserError: the times of some users are not known.
    """
    frame = dataset.inter_feat
    if config["benchmark_filename"]:
        return
    if settings.real_time_field in frame:
        frame[dataset.time_field] = frame[settings.real_time_field]
    times = frame[dataset.time_field]
    latest = times.groupby(frame[dataset.uid_field]).max()
    unknown = int(((latest >= 0) & (latest < settings.day_length)).sum())
    if unknown:
        raise UserError(
            f"Option `eval_args` is {config['eval_args']}, which splits by the times of all users, "
            f"but the times of {unknown:,} of {len(latest):,} users of data set "
            f"`{config['dataset']}` are positions in their histories (below `day_length`, "
            f"{settings.day_length:g}). Prepare it from data with times, split each user's events "
            "with group_by: user, or give the length of a day in the times' unit with "
            "--day_length."
        )


def _nothing_left(config: Config) -> UserError:
    users, items = (config[f"{kind}_inter_num_interval"] for kind in ("user", "item"))
    return UserError(
        f"Data set `{config['dataset']}` is empty after filtering: `user_inter_num_interval` is "
        f"{users} and `item_inter_num_interval` {items}. Widen them, or check the files."
    )


def split(config: Config, dataset: ItemDataset) -> list[Any]:
    """Split into the parts for training, validation and test, as ``eval_args`` asks.

    Raises:
        UserError: RecBole cannot split the data set so, no training pair is left, or it has fewer
            items than the evaluation ranks.
    """
    plan = getattr(dataset, "plan", None)
    try:
        parts: list[Any] = build(dataset, plan) if plan else list(dataset.build())
        if len(parts) == 2 and config["benchmark_filename"]:  # training and test
            parts.insert(1, parts[0].copy(parts[0].inter_feat[:0]))
            getLogger().warning(
                f"`benchmark_filename` is {config['benchmark_filename']}, without validation: all "
                "`epochs` are trained, and the last weights are tested."
            )
        if len(parts) != 3:
            raise ValueError(f"it gives {len(parts)} parts instead of 3")
    except (AssertionError, LookupError, NotImplementedError, TypeError, ValueError) as error:
        reason = str(error).rstrip(".") or type(error).__name__
        raise UserError(
            f"Option `eval_args` is {config['eval_args']}; RecBole cannot split the data set "
            f"`{config['dataset']}` so: {reason}. Expected what leaving `order` and `split` out "
            "means, order TO and split LS: valid_and_test, or another form of RecBole's."
        ) from error
    if len(parts[0].inter_feat) == 0:
        raise UserError(
            f"Data set `{config['dataset']}` leaves nothing to train on under `eval_args` "
            f"{config['eval_args']}: no user has two training events. Give longer histories, or "
            "another split."
        )
    if len(parts[2].inter_feat) == 0 and _asks_for_test(config["eval_args"]["split"]):
        raise UserError(
            f"Data set `{config['dataset']}` leaves nothing to test on under `eval_args` "
            f"{config['eval_args']}: no user has enough events. Give longer histories, or another "
            "split."
        )
    check_catalogue_size(config, dataset, parts)
    events = getattr(dataset, "events", None)
    if plan is None and isinstance(events, Events):  # others know theirs
        find_events(parts, events)
    return parts


def _asks_for_test(split: dict[str, Any]) -> bool:
    """Return True if RecBole's ``split``, {kind: value}, has a test part."""
    kind, value = next(iter(split.items()))
    if kind == "RS":
        return len(value) > 2 and value[2] > 0
    return kind == "LS" and value in ("valid_and_test", "test_only")


def data_loaders(config: Config, dataset: ItemDataset) -> tuple[Any, Any, Any]:
    """Build training, validation and test loaders, as RecBole's ``data_preparation`` does."""
    built = split(config, dataset)
    mapped = isinstance(built[0].inter_feat, TrainingHistories)
    # RecBole's samplers keep a set for every user; where all items are ranked, nobody asks them.
    samplers = [None] * 3 if mapped else create_samplers(config, dataset, built)
    loaders = []
    for phase, part, sampler in zip(("train", "valid", "test"), built, samplers):
        if mapped and phase == "train":
            loaders.append(HistoryLoader(config, part))
            continue
        shuffle = config["shuffle"] if phase == "train" else False
        loaders.append(get_dataloader(config, phase)(config, part, sampler, shuffle=shuffle))
    return loaders[0], loaders[1], loaders[2]
