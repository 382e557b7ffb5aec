"""Options of the protocol that splits the events of a data set."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, Optional

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.protocols import RunConfig
from recbole_bbqrec.settings import (
    Check,
    Positive,
    PositiveNumber,
    Settings,
    option,
    options_of,
    read,
)

LEAVE_ONE_OUT = "leave_one_out"
SHUFFLED_TIES = "leave_one_out_shuffled_ties"
NEXT_DAY = "next_day"
TIME = "time"

_EXPECTED = (
    f"{LEAVE_ONE_OUT}, {SHUFFLED_TIES}, {NEXT_DAY}, or {TIME}:q with q between 0 and 1, such as "
    f"{TIME}:0.9; the two in the middle also with a seed, such as {NEXT_DAY}:1"
)


class Protocol(NamedTuple):
    """A protocol by its name, with the seed of its random order of ties or its quantile."""

    name: str
    seed: int = 0
    quantile: float = 0.0


def parse(text: object) -> Protocol | None:
    """Return the protocol that a text names, or None.

    >>> parse("time:0.9")
    Protocol(name='time', seed=0, quantile=0.9)
    """
    name, colon, value = text.partition(":") if isinstance(text, str) else ("", "", "")
    if name in (SHUFFLED_TIES, NEXT_DAY) and (not colon or re.fullmatch(r"\d{1,9}", value)):
        return Protocol(name, seed=int(value or 0))
    if name == LEAVE_ONE_OUT and not colon:
        return Protocol(name)
    if name == TIME and re.fullmatch(r"0?\.\d+", value) and float(value) > 0:
        return Protocol(name, quantile=float(value))
    return None


ProtocolText = Optional[Annotated[str, Check(_EXPECTED, "str", lambda v: parse(v) is not None)]]


@dataclass(frozen=True)
class SplitSettings(Settings):
    """Options of every run that say which events are held out; overall.yaml."""

    protocol: ProtocolText = option(
        None,
        "leave_one_out | leave_one_out_shuffled_ties | next_day | time:q; empty: as eval_args say.",
    )
    time_target: Literal["last", "first", "all"] = option(
        "last", "Which of a user's events after the cut of time:q are tested."
    )
    time_validation: Literal["last_item", "by_time", "by_user"] = option(
        "last_item", "Validation of time:q."
    )
    time_validation_users: Positive = option(1024, "Users of time_validation: by_user.")
    day_length: PositiveNumber = option(86400.0, "Length of a day in the unit of the times.")
    real_time_field: str = option(
        "unix_time",
        "Column with the real times, where TIME_FIELD holds positions.",
        name="REAL_TIME_FIELD",
    )


def split_settings(config: RunConfig) -> SplitSettings:
    """Return the options of the split; those that a configuration does not have by default."""
    values = {each.name: config[each.name] for each in options_of(SplitSettings).values()}
    for each in options_of(SplitSettings).values():
        if values[each.name] is None:
            values[each.name] = each.default
    return read(SplitSettings, values)


def own_protocol(settings: SplitSettings) -> Protocol | None:
    """Return the protocol if it is one that RecBole does not have."""
    protocol = parse(settings.protocol)
    return None if protocol is None or protocol.name == LEAVE_ONE_OUT else protocol


def check_eval_args(protocol: object, eval_args: Mapping[str, Any]) -> None:
    """Raise a UserError if `eval_args` asks for another split than the option `protocol`."""
    asked = {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user"}
    if protocol is None:
        return
    for key, value in asked.items():
        if eval_args.get(key) not in (value, None):
            raise UserError(
                f"Option `protocol` is {protocol} and `eval_args` has {key}: {eval_args[key]}; "
                f"expected {key}: {value}, as a protocol decides the split. Remove one of the two."
            )
