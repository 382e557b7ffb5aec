"""Split a data set by a protocol that RecBole does not have, and find the events of its rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from recbole_bbqrec.data.protocol.events import Events, random_keys
from recbole_bbqrec.data.protocol.plan import TEST, TRAIN, VALID, Plan, make_plan
from recbole_bbqrec.data.protocol.report import date
from recbole_bbqrec.data.protocol.settings import SplitSettings, own_protocol
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.protocols import ItemDataset


def plan_split(dataset: ItemDataset, events: Events | None, settings: SplitSettings) -> Plan | None:
    """Order the events of a data set that is not yet built as its protocol asks.

    The time column then holds each event's place among its user's, so that RecBole keeps the order.
    Returns None, and changes nothing, where RecBole's own split is asked.

    Raises:
        UserError: the protocol needs times that the data set does not have, or nobody is left to
            train, validate or test.
    """
    protocol = own_protocol(settings)
    if protocol is None:
        return None
    name = f"`{dataset.config['dataset']}`"
    if events is None:
        raise UserError(
            f"Option `protocol` is {settings.protocol}, but data set {name} is split by its files "
            "(`benchmark_filename`). Remove one of the two options."
        )
    _check_times(events, settings, name)
    plan = make_plan(events, random_keys(events, dataset, protocol.seed), protocol, settings)
    _check_parts(plan, settings, name)
    frame = dataset.inter_feat.iloc[plan.events.row].reset_index(drop=True)
    frame[dataset.time_field] = plan.events.earlier.astype(np.float64)
    dataset.inter_feat = frame
    return plan


def build(dataset: Any, plan: Plan) -> list[Any]:
    """Return the parts for training, validation and test, with RecBole's augmented rows.

    Each part has ``event_index``, int64 [n_rows]: the event in ``plan.events`` that is the row's
    target.
    """
    dataset._change_feat_format()
    rows = dataset.inter_feat
    position = rows[dataset.time_field].numpy().astype(np.int64)
    index = plan.events.begin_of_users()[rows[dataset.uid_field].numpy()] + position  # [n_rows]
    if (plan.events.items[index] != rows[dataset.iid_field].numpy()).any():
        raise AssertionError("RecBole has put the events of a user in another order")
    dataset._drop_unused_col()
    parts = []
    for part in (TRAIN, VALID, TEST):
        chosen = np.flatnonzero(plan.part[index] == part)
        parts.append(dataset.copy(rows[chosen.tolist()]))  # a list: the rows remain indices
        parts[-1].event_index = index[chosen]
    return parts


def find_events(parts: Sequence[Any], events: Events) -> None:
    """Give the parts of RecBole's own split their ``event_index``.

    A user's rows in the order train, validation, test are the user's events in time order but for
    the first, whatever the split.
    """
    users = np.concatenate([part.inter_feat[part.uid_field].numpy() for part in parts])
    begin_of_user = events.begin_of_users()
    order = np.argsort(users, kind="stable")
    sizes = np.bincount(users, minlength=len(begin_of_user))
    place = np.empty(len(users), dtype=np.int64)
    place[order] = np.arange(len(users)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    index = begin_of_user[users] + place + 1
    bounds = np.cumsum([len(part.inter_feat) for part in parts])
    for part, chosen in zip(parts, np.split(index, bounds[:-1])):
        part.event_index = chosen


def _check_times(events: Events, settings: SplitSettings, name: str) -> None:
    known = events.times[events.known]
    users = len(np.unique(events.users))
    if len(known) == 0:
        raise UserError(
            f"Option `protocol` is {settings.protocol}, but no time of data set {name} is known: "
            f"all {len(events):,} events of {users:,} users have times below `day_length` "
            f"({settings.day_length:g}), as positions have. Prepare it from data with times, name "
            "their column with --REAL_TIME_FIELD, or give the length of a day in their unit with "
            "--day_length."
        )
    if known.min() == known.max():
        raise UserError(
            f"Option `protocol` is {settings.protocol}, but all {len(known):,} known times of data "
            f"set {name} are {date(known[0])}. Use another protocol, or data with times."
        )


def _check_parts(plan: Plan, settings: SplitSettings, name: str) -> None:
    target = plan.events.earlier > 0
    counts = [int((target & (plan.part == part)).sum()) for part in (TRAIN, VALID, TEST)]
    if min(counts) > 0:
        return
    train, valid, test = counts
    days = len(np.unique(plan.events.days[plan.events.known]))
    cut = "" if plan.cut is None else f" The cut is at {date(plan.cut)}."
    raise UserError(
        f"Option `protocol` is {settings.protocol}; it leaves {train:,} targets to train, "
        f"{valid:,} to validate and {test:,} to test of the {len(plan.events):,} events of data "
        f"set {name}, which lie on {days:,} days.{cut} Each needs at least one. Use another "
        "protocol" + (", quantile or time_validation." if plan.cut is not None else ".")
    )
