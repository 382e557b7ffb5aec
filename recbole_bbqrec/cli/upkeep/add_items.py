"""``python -m recbole_bbqrec add_items``: new items for a finished run, without training."""

from __future__ import annotations

import argparse
from pathlib import Path

from recbole_bbqrec.cli.arguments import describe, read_fields
from recbole_bbqrec.cli.grammar import CommandParser
from recbole_bbqrec.cli.prepare import ITEMS
from recbole_bbqrec.cli.upkeep.new_items import add_new_items
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.upkeep.settings import NEAREST

DESCRIPTION = """\
Write a new run that has the items of a finished run and new ones, and recommends both. Nothing is
trained. The finished run stays as it is, and its items keep their semantic IDs. For BBQRec and its
variants."""

NOTES = """\
New items are placed by their features: vectors of --features, or texts of --items that are encoded
as `prepare` encoded the run's. See docs/new_items.md."""


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of ``add_items``."""
    example = "saved/RUN --features=text=vectors.npy,items.txt --output=saved/RUN2"
    describe(parser, DESCRIPTION, example, NOTES)
    add = parser.group("finished run")
    add("run", "RUN", "saved/<Model>-<time>, or the .pth file beside it", type=Path)
    add = parser.group("new items")
    add_new_items(add)
    add = parser.group("how")
    add("--nearest", "N", "items of training whose mean stands for what only training teaches",
        type=int, default=NEAREST)  # fmt: skip
    add("--hide", "SHARE", "instead of adding items: train the run again without this share of its "
        "items, or, with time:0.9, without those first seen in the last tenth of its events; add "
        "them, and print recall on them (default: no)")  # fmt: skip
    add("--seed", "N", "of the choice of hidden items", type=int, default=0)
    add = parser.group("output")
    add("--output", "DIR", "folder of the new run; must not exist", type=Path, required=True)


def main(args: argparse.Namespace) -> int:
    """Add the items and print what changed.

    Raises:
        UserError: the run cannot be extended, or a file or option does not fit it.
    """
    if args.nearest < 1:
        raise UserError(f"--nearest is {args.nearest}; expected at least 1.")
    if args.hide is None and args.items is None and not args.features:
        raise UserError("There is no item to add: give --features, --items or both.")
    if args.hide is not None:
        return _hide(args)
    if args.output.exists():
        raise UserError(
            f"--output {args.output} exists; it is never replaced. Name another folder."
        )
    from recbole_bbqrec.prepare.tables.features import FeatureFile
    from recbole_bbqrec.prepare.tables.items import ItemOptions
    from recbole_bbqrec.upkeep.add_items import add_items, open_for_items
    from recbole_bbqrec.upkeep.new_items import read_new_items

    files = [FeatureFile.parse(text) for text in args.features]
    options = read_fields(ItemOptions, args, ITEMS)
    _, _, present = open_for_items(args.run)
    new = read_new_items(present, files, args.items, options, args.text_encoder)
    churn = add_items(args.run, new, args.output, args.nearest)
    print(f"{churn.items_added:,} items added to {churn.items_before:,}; "
          f"{churn.ids_changed} semantic IDs changed.")  # fmt: skip
    if churn.known:
        print(f"{churn.known:,} of the given items were there already and stay as they were.")
    print(f"{churn.ids_moved:,} new items took another last code, to be unique; "
          f"{churn.ids_shared:,} share their semantic ID.")  # fmt: skip
    if churn.without_similar:
        print(f"{churn.without_similar:,} new items are like no item of training.")
    print(f"Written to {args.output}")
    return 0


def _hide(args: argparse.Namespace) -> int:
    from tabulate import tabulate

    from recbole_bbqrec.upkeep.hidden_items import hide_and_add

    if args.items is not None or args.features:
        raise UserError("--hide takes the run's own items: leave out --items and --features.")
    outcome = hide_and_add(args.run, args.output, args.hide, args.seed, args.nearest)
    kinds = list(outcome.targets)
    header = ["recall@10 / NDCG@10", *(f"{kind} ({outcome.targets[kind]})" for kind in kinds)]
    rows = [
        [row.name, *(f"{row.values[kind][0]:.4f} / {row.values[kind][1]:.4f}" for kind in kinds)]
        for row in outcome.rows
    ]
    print(tabulate(rows, header, tablefmt="pipe", disable_numparse=True))
    return 0
