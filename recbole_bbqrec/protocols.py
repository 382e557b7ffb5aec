"""Protocols of a configuration and of a data set: the attributes that the package relies on.

RecBole is untyped, so its own classes cannot say this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

ID_SIGNAL = "id"  # name of the learned ID signal; no modality may have it


class RunConfig(Protocol):
    """Options of a run by name: RecBole's ``Config``, or a dictionary in a test."""

    def __getitem__(self, key: str, /) -> Any:
        """Return the value of an option; RecBole returns None for an unknown one."""


class ItemDataset(Protocol):
    """RecBole's ``SequentialDataset``, and the items' features if a model reads them.

    Only :class:`~recbole_bbqrec.data.dataset.MultiModalDataset` has ``modalities``,
    ``item_tokens``, ``item_features`` and ``added_items``.
    """

    config: Any
    uid_field: str
    iid_field: str
    time_field: str
    item_list_length_field: str
    inter_feat: Any
    field2id_token: Mapping[str, np.ndarray]
    file_events: Any  # of :mod:`recbole_bbqrec.data.protocol`, as are the next three
    events: Any
    plan: Any
    ties: Any
    added_items: Any

    @property
    def item_num(self) -> int:
        """Number of items, padding (item 0) included."""

    @property
    def user_num(self) -> int:
        """Number of users, padding (user 0) included."""

    @property
    def inter_num(self) -> int:
        """Number of interactions."""

    @property
    def modalities(self) -> Sequence[str]:
        """Names of the modalities in configured order."""

    @property
    def item_tokens(self) -> list[str]:
        """Raw token of each internal item id."""

    def item_features(self, name: str) -> Any:
        """Return the features of one modality, aligned with internal item ids."""

    def num(self, field: str) -> int:
        """Return the number of different values of a field, padding included."""

    def build(self) -> Sequence[Any]:
        """Split into the parts for training, validation and test."""
