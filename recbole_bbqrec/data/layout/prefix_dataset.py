"""RecBole's sequential data set with rows that are laid out for one batch at a time."""

from __future__ import annotations

from typing import Any

from recbole.data.dataset import SequentialDataset
from recbole.utils.enum_type import FeatureSource, FeatureType

from recbole_bbqrec.data.layout.event_store import EventStore
from recbole_bbqrec.data.layout.mapped_split import mapped_parts, take_events
from recbole_bbqrec.data.layout.prefix_rows import Layout, PrefixRows, last_two, prefix_rows
from recbole_bbqrec.protocols import RunConfig


class PrefixDataset(SequentialDataset):
    """A :class:`SequentialDataset` that never holds every prefix of every user.

    Rows, their order and their columns are RecBole's; see :class:`PrefixRows`. With a ``store`` the
    events are taken from there; the training part then has histories alone, and no row has times.
    """

    inter_feat: Any

    def __init__(self, config: RunConfig, store: EventStore | None = None) -> None:
        """Read the data set, or take the events of ``store`` in place of reading it."""
        self.store = store
        super().__init__(config)

    def _from_scratch(self) -> None:  # RecBole's name
        if self.store is None:
            super()._from_scratch()
            return
        self._get_preset()
        self._get_field_from_config()
        take_events(self, self.store)
        self._set_list_fields([self.iid_field])

    def data_augmentation(self) -> None:
        """Make one row per prefix of each user, as RecBole does, but as indices.

        Columns of other types than numbers and tokens are left to RecBole.
        """
        simple = {FeatureType.TOKEN, FeatureType.FLOAT}
        numerical = self.config["numerical_features"] or []
        fields = list(self.inter_feat)
        if any(self.field2type[f] not in simple or f in numerical for f in fields):
            super().data_augmentation()
            return
        self._aug_presets()
        self._check_field("uid_field", "time_field")
        self.sort(by=[self.uid_field, self.time_field], ascending=True)
        events = {name: self.inter_feat[name] for name in fields}
        first, target = prefix_rows(events[self.uid_field].numpy())
        self.inter_feat = PrefixRows(events, first, target, self.layout(fields))

    def _set_list_fields(self, fields: list[str]) -> None:
        """Name the columns that RecBole would make of token columns."""
        for field in fields:
            name = f"{field}{self.config['LIST_SUFFIX']}"
            setattr(self, f"{field}_list_field", name)
            self.set_field_property(
                name, FeatureType.TOKEN_SEQ, FeatureSource.INTERACTION, self.max_item_list_len
            )
        self.set_field_property(
            self.item_list_length_field, FeatureType.TOKEN, FeatureSource.INTERACTION, 1
        )

    def build(self) -> list[Any]:
        """Split as RecBole does; mapped events by leave-one-out."""
        if self.store is None:
            return list(super().build())
        return mapped_parts(self, self.store)

    @property
    def avg_actions_of_users(self) -> Any:
        if self.store is None:
            return super().avg_actions_of_users
        return len(self.store) / self.store.n_users

    @property
    def avg_actions_of_items(self) -> Any:
        if self.store is None:
            return super().avg_actions_of_items
        return len(self.store) / (self.item_num - 1)

    def layout(self, fields: list[str]) -> Layout:
        """Return the names of the columns that RecBole makes of ``fields``."""
        lists = {getattr(self, f"{f}_list_field"): f for f in fields if f != self.uid_field}
        return Layout(lists, self.item_list_length_field, self.max_item_list_len)

    def leave_one_out(self, group_by: str | None, leave_one_mode: str) -> list[Any]:
        """Split as RecBole does, without its lists of Python integers."""
        rows = self.inter_feat
        if leave_one_mode != "valid_and_test" or not isinstance(rows, PrefixRows) or not group_by:
            return list(super().leave_one_out(group_by, leave_one_mode))
        parts = last_two(rows[group_by].numpy())
        self._drop_unused_col()
        return [self.copy(rows.part(part)) for part in parts]
