"""Leave-one-out over mapped events: the parts for training, validation and test."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from recbole.utils.enum_type import FeatureSource, FeatureType

from recbole_bbqrec.data.layout.event_store import EventStore, TokenNumbers, held_out
from recbole_bbqrec.data.layout.prefix_rows import PrefixRows
from recbole_bbqrec.errors import UserError


class TrainingHistories:
    """Training rows of mapped events, in the place of RecBole's: histories alone.

    Has the number of rows, and their users and items for RecBole's counters; no row is laid out.

    Attributes:
        items, offsets, users: as those of ``Histories``; items are int32.
    """

    def __init__(
        self,
        items: torch.Tensor,
        offsets: torch.Tensor,
        users: torch.Tensor,
        fields: tuple[str, str],
    ) -> None:
        self.items, self.offsets, self.users = items, offsets, users
        self._fields = fields

    def __len__(self) -> int:
        return len(self.items) - len(self.users)

    def __contains__(self, name: str) -> bool:
        return name in self._fields

    def __getitem__(self, name: str) -> torch.Tensor:
        user, item = self._fields
        if name == user:
            return torch.repeat_interleave(self.users, self.offsets.diff() - 1)
        if name == item:
            targets = torch.ones(len(self.items), dtype=torch.bool)
            targets[self.offsets[:-1]] = False
            return self.items[targets].long()
        raise UserError(
            f"Mapped events have no training rows, but something asks for {name!r} of them. Use "
            "--data_layout=recbole."
        )


class HistoryLoader:
    """RecBole's training loader of a part whose rows nobody iterates over."""

    def __init__(self, config: Any, dataset: Any) -> None:
        self.config, self._dataset, self.dataset = config, dataset, dataset
        self.generator = torch.Generator().manual_seed(config["seed"])

    def __len__(self) -> int:
        return math.ceil(len(self._dataset) / self.config["train_batch_size"])


def take_events(dataset: Any, store: EventStore) -> None:
    """Give a data set of RecBole's, whose options are read, the events of a store."""
    source = {dataset.uid_field: FeatureSource.USER_ID, dataset.iid_field: FeatureSource.ITEM_ID}
    tokens = {dataset.uid_field: store.user_tokens, dataset.iid_field: store.item_tokens}
    for field, texts in tokens.items():
        dataset.set_field_property(field, FeatureType.TOKEN, source[field], 1)
        dataset.field2id_token[field] = texts
        dataset.field2token_id[field] = TokenNumbers(texts)
    dataset.user_feat = dataset.item_feat = None
    dataset.feat_name_list = ["inter_feat"]
    dataset.inter_feat = store


def mapped_parts(dataset: Any, store: EventStore) -> list[Any]:
    """Return the parts of RecBole's leave-one-out, their rows in RecBole's order.

    Each part has ``event_index``, int64 [n_rows], of the rows' targets in the events; that of the
    training part is empty, as nobody asks for it.
    """
    fields = dataset.uid_field, dataset.iid_field
    counts = np.diff(store.offsets)
    out = held_out(counts)
    trained = counts - out
    users = np.flatnonzero(counts > 1)  # RecBole has no row of a single event
    histories = TrainingHistories(
        torch.from_numpy(store.train_items),
        torch.from_numpy(np.r_[0, np.cumsum(trained[users])]),
        torch.from_numpy(users + 1),
        fields,
    )
    parts = [dataset.copy(histories)]
    parts[0].event_index = np.zeros(0, dtype=np.int64)
    order = store.order.astype(np.int64)
    for place in (2, 1):  # from the end: validation, test
        chosen = order[out[order - 1] >= place]
        parts.append(dataset.copy(_rows(dataset, store, chosen, place)))
        parts[-1].event_index = store.offsets[chosen] - place
    return parts


def _rows(dataset: Any, store: EventStore, users: np.ndarray, place: int) -> PrefixRows:
    """Return the rows whose targets are ``place`` events from the end of ``users`` [n]."""
    events = {dataset.iid_field: torch.from_numpy(store.items)}
    first = torch.from_numpy(store.offsets[users - 1])
    target = torch.from_numpy(store.offsets[users] - place)
    rows = PrefixRows(events, first, target, dataset.layout([dataset.iid_field]))
    rows.interaction[dataset.uid_field] = torch.from_numpy(users)
    return rows
