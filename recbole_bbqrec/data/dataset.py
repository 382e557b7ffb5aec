"""RecBole's sequential data set with multi-modal item features beside it."""

from __future__ import annotations

from typing import Any

import torch
from recbole.data.interaction import Interaction

from recbole_bbqrec.data.catalogue import add_catalogue, add_later
from recbole_bbqrec.data.features import ModalityFeatures, load_modality
from recbole_bbqrec.data.layout.event_store import EventStore
from recbole_bbqrec.data.layout.prefix_dataset import PrefixDataset
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.protocols import ID_SIGNAL, RunConfig


class MultiModalDataset(PrefixDataset):
    """RecBole's :class:`SequentialDataset` that also holds the features named in ``modalities``.

    Ids, vocabulary and split are those of the plain class: features are read after the ids are
    final and aligned by raw token. The parts of a split share the matrices (RecBole copies a
    data set shallowly). A pickled data set leaves them out and reads them again when loaded, so
    they are never stale.

    ``added_items`` bool [n_items] marks the items that were added to a trained run
    (``<Dataset>.added.txt``): scaling and principal components stay those of the others.
    """

    added_items: torch.Tensor

    def __init__(self, config: RunConfig, store: EventStore | None = None) -> None:
        super().__init__(config, store)
        self.added_items = add_later(self)
        self._features = self._load_features()

    def _remap_ID_all(self) -> None:  # RecBole's name
        super()._remap_ID_all()
        add_catalogue(self)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities in configured order."""
        return tuple(self._features)

    @property
    def item_tokens(self) -> list[str]:
        """Raw token of each internal item id; index 0 is ``[PAD]``."""
        return [str(token) for token in self.field2id_token[self.iid_field]]

    def item_features(self, name: str) -> ModalityFeatures:
        """Features of one configured modality, aligned with internal item ids.

        Raises:
            UserError: the modality is not configured.
        """
        if name not in self._features:
            raise UserError(
                f"Modality {name!r} is not loaded; `modalities` is {list(self._features)}. "
                f"Add {name!r} to `modalities` in the data set's YAML."
            )
        return self._features[name]

    def _load_features(self) -> dict[str, ModalityFeatures]:
        names = check_modalities(self.config["modalities"])
        tokens = self.item_tokens
        return {
            name: load_modality(self.dataset_path, self.dataset_name, name, tokens)
            for name in names
        }

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state.pop("_features", None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._features = self._load_features()

    def copy(self, new_inter_feat: Interaction) -> MultiModalDataset:
        """RecBole's shallow copy, spelt out: ``copy.copy`` would read the features again."""
        other = type(self).__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.inter_feat = new_inter_feat
        return other


def check_modalities(value: object) -> list[str]:
    """Return ``modalities`` as a list of names; None means no modality.

    Raises:
        UserError: it is not a list of distinct names, or names the reserved signal ``id``.
    """
    if value is None:
        return []
    expected = "expected a list of modality names such as [text, image], or an empty list"
    if not isinstance(value, (list, tuple)):
        hint = "; on the command line write --modalities=\"['text']\""
        raise UserError(f"modalities is {value!r}; {expected}{hint}.")
    for name in value:
        if not isinstance(name, str) or not name:
            raise UserError(f"modalities holds {name!r}; {expected}.")
    if ID_SIGNAL in value:
        raise UserError(
            f"modalities holds {ID_SIGNAL!r}, the name of the learnable ID signal, which has no "
            f"feature file; {expected}."
        )
    if len(set(value)) != len(value):
        raise UserError(f"modalities is {list(value)}, which repeats a name; {expected}.")
    return list(value)
