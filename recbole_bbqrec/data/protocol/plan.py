"""Plan of a split: the events to train on, to validate, to test, and those of histories only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recbole_bbqrec.data.protocol.events import Events, changes
from recbole_bbqrec.data.protocol.settings import (
    NEXT_DAY,
    SHUFFLED_TIES,
    Protocol,
    SplitSettings,
)

TRAIN, VALID, TEST, HISTORY = range(4)  # HISTORY: part of later histories, never a target


@dataclass(frozen=True)
class Plan:
    """Events in the order of a protocol, users one after another, and the part of each.

    Attributes:
        events: the events kept.
        part: int8 [n], TRAIN, VALID, TEST or HISTORY. A user's first event is never a target.
        cut: last time of training under time:q; None under other protocols.
    """

    events: Events
    part: np.ndarray
    cut: float | None = None


def make_plan(
    events: Events, keys: np.ndarray, protocol: Protocol, settings: SplitSettings
) -> Plan:
    """Split ``events`` by ``protocol``; ``keys`` uint64 [n] are random numbers of the events."""
    ties = events.days if protocol.name == NEXT_DAY else events.times
    # Events of unknown time keep their order.
    keys = np.where(events.known, keys, np.arange(len(events), dtype=np.uint64))
    order = np.lexsort((keys, np.nan_to_num(ties), events.users))
    events, keys = events.take(order), keys[order]
    if protocol.name == SHUFFLED_TIES:
        return Plan(events, _last_two(events))
    if protocol.name == NEXT_DAY:
        return _next_day(events)
    return _by_time(events, keys, protocol.quantile, settings)


def _last_two(events: Events) -> np.ndarray:
    """Test each user's last event and validate the one before, as RecBole's leave-one-out does.

    Users of three events have no validation, users of two only train.
    """
    part = np.full(len(events), TRAIN, dtype=np.int8)
    part[(events.later == 0) & (events.earlier >= 2)] = TEST
    part[(events.later == 1) & (events.earlier >= 2)] = VALID
    return part


def _next_day(events: Events) -> Plan:
    """Test one event of each user's last day, and validate one of the user's day before that.

    ``events`` are in random order within a day, so the first of a day is a random one. The others
    of the last day are left out, those of the validation day are part of the test's history. A
    user of two days has no validation.
    """
    unknown = ~events.known
    opens = (changes(events.days) & ~unknown) | (events.earlier == 0)  # first event of a day
    day = np.cumsum(opens)  # [n], number of the user's day, counted over all users
    place = np.arange(len(events))
    first_day, last_day = day[place - events.earlier], day[place + events.later]
    tested = (day == last_day) & (last_day > first_day)
    validated = (day == last_day - 1) & (day > first_day)
    part = np.full(len(events), TRAIN, dtype=np.int8)
    part[validated] = HISTORY
    part[validated & opens] = VALID
    part[tested] = TEST
    kept = ~tested | opens
    return Plan(events.take(np.flatnonzero(kept)), part[kept])


def _by_time(events: Events, keys: np.ndarray, quantile: float, settings: SplitSettings) -> Plan:
    """Train up to a point in time and test on what follows; "Time to Split" (RecSys 2025).

    The history of a test target is everything before it, what follows the cut included.
    """
    cut = float(np.quantile(events.times[events.known], quantile))
    after = events.times > cut  # False where the time is not known
    has_history = events.earlier > 0
    part = np.full(len(events), TRAIN, dtype=np.int8)
    part[after] = HISTORY
    part[_targets(events, after & has_history, settings.time_target)] = TEST

    before = ~after
    if settings.time_validation == "by_time":
        second = float(np.quantile(events.times[before & events.known], quantile))
        between = before & (events.times > second)
    elif settings.time_validation == "by_user":
        between = before & _chosen(events, keys, before, settings.time_validation_users)
    else:
        between = _targets(events, before & events.known, "last")
    part[between] = HISTORY
    part[_targets(events, between & has_history, "last")] = VALID
    return Plan(events, part, cut)


def _targets(events: Events, candidates: np.ndarray, choice: str) -> np.ndarray:
    """Choose each user's last, first or all candidates, which follow each other: bool [n]."""
    if choice == "last":
        return candidates & ((events.later == 0) | ~np.r_[candidates[1:], False])
    if choice == "first":
        return candidates & ((events.earlier == 0) | ~np.r_[False, candidates[:-1]])
    return candidates


def _chosen(events: Events, keys: np.ndarray, before: np.ndarray, count: int) -> np.ndarray:
    """Choose ``count`` random users of two or more known events ``before`` the cut: bool [n]."""
    numbers = np.cumsum(events.earlier == 0) - 1  # [n], number of each event's user
    eligible = np.bincount(numbers[before & events.known]) >= 2
    of_user = keys[events.earlier == 0]
    ranked = np.flatnonzero(eligible)[np.argsort(of_user[: len(eligible)][eligible])]
    chosen = np.zeros(int(numbers[-1]) + 1, dtype=bool)
    chosen[ranked[:count]] = True
    return chosen[numbers]
