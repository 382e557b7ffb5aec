"""``python -m recbole_bbqrec update``: new events, users and items for a finished run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from recbole_bbqrec.cli.arguments import add_fields, describe, read_fields
from recbole_bbqrec.cli.grammar import CommandParser
from recbole_bbqrec.cli.prepare import EVENTS, ITEMS
from recbole_bbqrec.cli.upkeep.new_items import add_new_items
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.prepare.tables.events import EventOptions
from recbole_bbqrec.prepare.tables.items import ItemOptions
from recbole_bbqrec.upkeep.settings import EPOCHS

if TYPE_CHECKING:
    from recbole_bbqrec.upkeep.newest_day import NewestDay

DESCRIPTION = """\
Write a new run that is a finished run of a generative model with new events, users and items. Phase
two starts from the old weights and trains a few epochs on all training events. Phase one stays, so
that no semantic ID changes. The finished run is only read."""

NOTES = """\
Events of items that the run does not have are left out and counted, unless --items or --features
bring the items. After an interruption the same command goes on. See docs/update.md."""

#: The columns of events that prepare has, without its filters by number.
_EVENTS = {name: EVENTS[name] for name in (
    "user", "item", "time", "order", "rating", "min_rating", "time_format", "separator",
    "no_header", "strict",
)}  # fmt: skip


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of ``update``."""
    describe(parser, DESCRIPTION, "saved/RUN --interactions=today.csv --output=saved/RUN2", NOTES)
    add = parser.group("finished run")
    add("run", "RUN", "saved/<Model>-<time>, or the .pth file beside it", type=Path)
    add = parser.group("new events")
    add("--interactions", "FILE", "table with a row an interaction, as for `prepare`", type=Path,
        required=True)  # fmt: skip
    add_fields(add, EventOptions, _EVENTS)
    add = parser.group("new items")
    add_new_items(add)
    add = parser.group("training")
    add("--epochs", "N", "epochs of phase two", type=int, default=EPOCHS)
    add("--learning_rate", "X", "peak of the schedule (default: that of the run)", type=float)
    add = parser.group("output")
    add("--output", "DIR", "folder of the new run; must not exist", type=Path, required=True)


def main(args: argparse.Namespace) -> int:
    """Update the run and print what was folded in and the metrics before and after.

    Raises:
        UserError: the run cannot be updated, or a file or option does not fit it.
    """
    if args.epochs < 1 or (args.learning_rate is not None and not args.learning_rate > 0):
        raise UserError(
            f"--epochs is {args.epochs} and --learning_rate {args.learning_rate}; expected at "
            "least one epoch and a rate above 0."
        )
    events = read_fields(EventOptions, args, _EVENTS)
    from recbole_bbqrec.prepare.tables.features import FeatureFile
    from recbole_bbqrec.upkeep.update import NewData, update

    features = [FeatureFile.parse(text) for text in args.features]
    columns = read_fields(ItemOptions, args, ITEMS)
    new = NewData(args.interactions, events, args.items, features, columns, args.text_encoder)
    report = update(args.run, new, args.output, args.epochs, args.learning_rate)
    counts = report.counts
    print(
        f"{counts.events:,} events of {counts.users:,} users folded in; {counts.new_users:,} new "
        f"users, {report.items_added:,} new items, {report.ids_changed} semantic IDs changed."
    )
    if counts.older:
        print(f"{counts.older:,} events are older than their user's last one, and stand before it.")
    if report.left_out:
        print(f"Left out:\n{report.left_out}")
    _print_newest(report.newest)
    print(f"Trained {report.epochs} epochs in {report.seconds:.1f} s; the run itself took "
          f"{report.seconds_before:.1f} s.\nWritten to {args.output}")  # fmt: skip
    return 0


def _print_newest(newest: NewestDay) -> None:
    from tabulate import tabulate

    of = "users with new events" if newest.day is None else f"the newest day, {newest.day}"
    unknown = f", {newest.unknown:,} of them new items" if newest.unknown else ""
    print(f"{newest.targets:,} test targets of {of}{unknown}; neither model was trained on them:")
    if newest.targets:
        names = list(newest.before)
        rows = (("before", newest.before), ("after", newest.after))
        cells = [[name, *(f"{values[key]:.4f}" for key in names)] for name, values in rows]
        print(tabulate(cells, ["", *names], tablefmt="pipe", disable_numparse=True))
