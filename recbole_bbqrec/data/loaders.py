"""RecBole's dataset and data loaders, built without its pickle caches."""

from __future__ import annotations

from typing import Any

from recbole.config import Config
from recbole.data.utils import create_samplers, get_dataloader

from recbole_bbqrec.data.catalogue_size import check_catalogue_size
from recbole_bbqrec.data.duplicates import warn_of_duplicates
from recbole_bbqrec.data.event_times import check_has_times, check_times, keep_order
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.protocols import ItemDataset


def create_dataset(config: Config, dataset_class: type) -> Any:
    """Read, filter and remap the data set.

    Raises:
        UserError: RecBole cannot read the files, they have no times, or nothing is left after
            filtering.
    """
    check_times(config)
    try:
        dataset = dataset_class(config)
    except (ValueError, KeyError, TypeError) as error:
        if "feat is empty" in str(error):
            raise _nothing_left(config) from error
        raise UserError(
            f"RecBole cannot read the data set `{config['dataset']}` in {config['data_path']}: "
            f"{error}. Check the header of its files and the options `load_col` and `*_FIELD`."
        ) from error
    check_has_times(config, dataset)
    if dataset.inter_num == 0:
        raise _nothing_left(config)
    warn_of_duplicates(dataset)
    keep_order(dataset)
    return dataset


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
    try:
        parts: list[Any] = list(dataset.build())
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
    samplers = create_samplers(config, dataset, built)
    loaders = []
    for phase, part, sampler in zip(("train", "valid", "test"), built, samplers):
        shuffle = config["shuffle"] if phase == "train" else False
        loaders.append(get_dataloader(config, phase)(config, part, sampler, shuffle=shuffle))
    return loaders[0], loaders[1], loaders[2]
