"""Items beside those with events: ``NAME.catalogue.txt`` lists the whole catalogue.

Without it a data set's items are those of its events, after the cores. The items added here come
after them, so that internal ids of the others stay. They have no event to train or test on, but
features, semantic IDs and a place in every ranking; so the hash of the split covers them.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from recbole_bbqrec.data.features import read_item_list
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.reading import reading

SUFFIX = "catalogue.txt"  # one raw item token a line
SEEN = "seen.tsv"  # events with items that have none in NAME.inter: a user, a tab and an item
ADDED = "added.txt"  # items that were added to a trained run, likewise
VOCABULARY = "vocabulary.txt"  # items of a run that was updated, by internal id from 1, likewise
_PAD = "[PAD]"
_ADDED = "catalogue_items"  # attribute of a data set


def check_tokens(dataset: Any) -> None:
    """Raise a UserError if a user or item has the name that RecBole gives to the padding."""
    for kind, field in (("user", dataset.uid_field), ("item", dataset.iid_field)):
        if _PAD in dataset.field2id_token[field][1:]:
            raise UserError(
                f"Data set `{dataset.config['dataset']}` has an event of the {kind} {_PAD!r} in "
                f"column `{field}`, which is RecBole's name for no {kind}. Rename or remove it."
            )


def add_catalogue(dataset: Any) -> None:
    """Add the items of the catalogue's file, if there is one, to the vocabulary of ``dataset``.

    Raises:
        UserError: the file is faulty, or columns of the items are loaded, whose rows are those of
            the vocabulary without it.
    """
    name = dataset.config["dataset"]
    path = Path(dataset.config["data_path"]) / f"{name}.{SUFFIX}"
    if hasattr(dataset, _ADDED) or not path.is_file():
        return
    if dataset.item_feat is not None:
        raise UserError(
            f"{path} adds items, and `load_col` loads columns of {name}.item: both cannot be had. "
            "Remove one of them."
        )
    _append(dataset, read_item_list(path))


def add_later(dataset: Any) -> torch.Tensor:
    """Add the items of ``NAME.added.txt``; return their mask, bool [n_items].

    Call before the data set is built: items of ``NAME.vocabulary.txt`` get their internal ids here.

    They were added to a trained run (:mod:`recbole_bbqrec.upkeep.add_items`).
    """
    path = Path(dataset.dataset_path) / f"{dataset.dataset_name}.{ADDED}"
    tokens = read_item_list(path) if path.is_file() else []
    if tokens:
        _append(dataset, tokens)
    _keep_vocabulary(dataset)
    id_of = dataset.field2token_id[dataset.iid_field]
    mask = torch.zeros(len(id_of), dtype=torch.bool)
    mask[[id_of[token] for token in tokens]] = True
    return mask


def read_seen(
    path: Path, user_ids: Mapping[str, int], item_ids: Mapping[str, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return users, ascending, and items of the events in ``NAME.seen.tsv``: ids, int64 [n] each.

    Empty where there is no such file. Users and items that the run does not have are left out.

    Raises:
        UserError: the file is damaged.
    """
    if not path.is_file():
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    kind = "lines of a user, a tab and an item"
    with reading(path, kind, "Restore it, or prepare the data set anew."):
        frame = pd.read_csv(
            path, sep="\t", usecols=["user_id", "item_id"], dtype=str, quoting=csv.QUOTE_NONE,
            keep_default_na=False, encoding="utf-8",
        )  # fmt: skip
        ids = [
            np.array([id_of.get(token, 0) for token in frame[column]], dtype=np.int64)
            for column, id_of in (("user_id", user_ids), ("item_id", item_ids))
        ]
    users, items = (column[(ids[0] > 0) & (ids[1] > 0)] for column in ids)
    order = np.argsort(users, kind="stable")
    return users[order], items[order]


def _keep_vocabulary(dataset: Any) -> None:
    """Give the items of ``NAME.vocabulary.txt``, if there is one, the internal ids of their lines.

    Others come after them. A run that was updated has the file
    (:mod:`recbole_bbqrec.upkeep.update`): an item of the catalogue that gets its first event would
    otherwise move, and the rows of the weights are those of internal ids.

    Raises:
        UserError: the file lists an item that the data set does not have.
    """
    path = Path(dataset.dataset_path) / f"{dataset.dataset_name}.{VOCABULARY}"
    if not path.is_file():
        return
    field = dataset.iid_field
    present, id_of = dataset.field2id_token[field], dataset.field2token_id[field]
    first = read_item_list(path)
    lacking = [token for token in first if token not in id_of]
    if lacking:
        raise UserError(
            f"{path} lists {lacking[0]!r}, which is no item of the data set after filtering; "
            "expected the items of an updated run. Restore the file, or remove it."
        )
    listed = set(first)
    order = [present[0], *first, *(token for token in present[1:] if str(token) not in listed)]
    moved = np.zeros(len(order), dtype=np.int64)
    moved[[id_of[token] for token in order]] = np.arange(len(order))
    dataset.inter_feat[field] = moved[dataset.inter_feat[field].to_numpy()]
    dataset.field2id_token[field] = np.array(order, dtype=present.dtype)
    id_of.update({token: number for number, token in enumerate(order)})


def _append(dataset: Any, tokens: list[str]) -> None:
    field = dataset.iid_field
    id_of = dataset.field2token_id[field]
    added = [token for token in tokens if token not in id_of]
    first = len(dataset.field2id_token[field])
    id_of.update({token: first + number for number, token in enumerate(added)})
    known = dataset.field2id_token[field]
    dataset.field2id_token[field] = np.concatenate([known, np.array(added, dtype=object)])
    setattr(dataset, _ADDED, (*added_items(dataset), *added))


def added_items(dataset: Any) -> tuple[str, ...]:
    """Return the tokens that :func:`add_catalogue` and :func:`add_later` added."""
    added: tuple[str, ...] = getattr(dataset, _ADDED, ())
    return added
