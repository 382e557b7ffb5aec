"""Hash that identifies a split by its raw tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import numpy as np

from recbole_bbqrec.data.catalogue import added_items
from recbole_bbqrec.data.histories import Histories

_USERS = 1 << 16  # whose tokens are in memory together


def split_hash(train: Any, valid: Any, test: Any) -> str:
    """Identify a leave-one-out split by its raw tokens, with 16 hex characters.

    SHA-256 over users sorted by token: user token, training item tokens in order, validation
    and test item tokens; then the items that a catalogue adds to those with events. Independent
    of internal ids and of MAX_ITEM_LIST_LENGTH; equal for two data sets exactly when they train
    and evaluate on the same events in the same order.
    """
    histories = Histories.from_training_data(train)
    slots = [_Slot(histories.users.numpy(), histories.offsets.numpy(), histories.items.numpy())]
    slots += [_Slot.of_rows(dataset) for dataset in (valid, test)]
    users = np.unique(np.concatenate([slot.users for slot in slots]))
    user_token = np.asarray(train.field2id_token[train.uid_field], dtype=str)
    users = users[np.argsort(user_token[users], kind="stable")]
    digest = hashlib.sha256()
    for first in range(0, len(users), _USERS):
        some = users[first : first + _USERS]
        texts = [slot.texts(some, train.field2id_token[train.iid_field]) for slot in slots]
        lines = map("\n".join, zip(user_token[some].tolist(), *texts))
        digest.update("".join(line + "\n\n" for line in lines).encode())
    for token in sorted(added_items(train)):
        digest.update(f"item\t{token}\n".encode())
    return digest.hexdigest()[:16]


class _Slot:
    """Items of one part by user: ``users`` ascending [n], whose items follow each other."""

    def __init__(self, users: np.ndarray, offsets: np.ndarray, items: np.ndarray) -> None:
        self.users, self._offsets, self._items = users, offsets, items

    @classmethod
    def of_rows(cls, dataset: Any) -> _Slot:
        """Take the targets of rows, several of a user in their order."""
        rows = dataset.inter_feat
        of_row = rows[dataset.uid_field].numpy()
        order = np.argsort(of_row, kind="stable")
        users, counts = np.unique(of_row, return_counts=True)
        items = rows[dataset.iid_field].numpy()[order]
        return cls(users, np.r_[0, np.cumsum(counts)], items)

    def texts(self, users: np.ndarray, item_token: np.ndarray) -> Iterator[str]:
        """Return the item tokens of each user, separated by tabs; empty for one without any."""
        place = np.searchsorted(self.users, users)
        known = np.r_[self.users, -1][place] == users
        counts = np.where(known, np.diff(self._offsets, append=0)[place], 0)
        begin = self._offsets[place]
        index = np.arange(counts.sum()) + np.repeat(begin - (np.cumsum(counts) - counts), counts)
        tokens = np.asarray(item_token[self._items[index]]).tolist()
        ends = list(accumulate(counts.tolist(), initial=0))
        return ("\t".join(tokens[a:b]) for a, b in zip(ends, ends[1:]))
