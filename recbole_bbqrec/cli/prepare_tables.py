"""The part of ``prepare`` that reads one's own tables: ``prepare NAME --interactions FILE``."""

from __future__ import annotations

import argparse
from pathlib import Path

from recbole_bbqrec.prepare.folder import TFIDF
from recbole_bbqrec.prepare.tables.build import OwnSource, prepare_own
from recbole_bbqrec.prepare.tables.events import REPEATS, EventOptions
from recbole_bbqrec.prepare.tables.features import FeatureFile
from recbole_bbqrec.prepare.tables.items import ItemOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the group of arguments."""
    own = parser.add_argument_group(
        "your own data",
        "Tables are .csv, .tsv (also .gz, .zst) or .parquet. Columns with usual names (user_id, "
        "product_id, timestamp, ...) are found; every row left out is counted and reported.",
    )
    own.add_argument(
        "--interactions", type=Path, metavar="FILE",
        help="table with a row an interaction; without a time or an order column, the rows are "
        "taken to be in time order",
    )  # fmt: skip
    own.add_argument(
        "--items", type=Path, metavar="FILE",
        help="table of items, also .jsonl: titles and texts",
    )  # fmt: skip
    own.add_argument(
        "--features", action="append", default=[], metavar="MODALITY=FILE.npy[,ITEMS.txt]",
        help="feature matrix of a modality; its rows are of the items in ITEMS.txt, one a line, "
        "or without it of those in --items, in that order. May be repeated",
    )  # fmt: skip
    for role, help_text in (
        ("user", "column of the user"),
        ("item", "column of the item"),
        ("time", "column of the time: numbers, or ISO 8601 dates"),
        ("order", "column of numbers that order a user's interactions, instead of a time"),
        ("rating", "column of the rating, for --min-rating"),
    ):
        own.add_argument(f"--{role}-column", metavar="COLUMN", help=help_text)
    own.add_argument("--items-item-column", metavar="COLUMN", help="column of the item in --items")
    own.add_argument("--title-column", metavar="COLUMN", help="column of the title in --items")
    own.add_argument(
        "--text-columns", default="", metavar="A,B",
        help="columns of --items that make an item's text (default: title, name, description, "
        "brand, categories, those that it has)",
    )  # fmt: skip
    own.add_argument(
        "--min-rating", type=float, metavar="X",
        help="leave out interactions rated lower (default: all count, whatever their rating)",
    )  # fmt: skip
    own.add_argument(
        "--repeats", choices=REPEATS, default="keep",
        help="interactions of a user with the same item: keep all (default), or the first or the "
        "last. The same user, item and time twice is always one",
    )  # fmt: skip
    for side in ("user", "item"):
        own.add_argument(
            f"--{side}-core", type=int, default=5, metavar="N",
            help=f"leave out {side}s with fewer interactions, repeatedly (default: 5; 1 keeps all)",
        )  # fmt: skip
    own.add_argument(
        "--strict", action="store_true", help="refuse faulty rows instead of leaving them out"
    )


def main(args: argparse.Namespace) -> int:
    """Prepare the data set and print what was kept and what was left out.

    Raises:
        UserError: see :func:`recbole_bbqrec.prepare.tables.build.prepare_own`.
    """
    report = prepare_own(
        args.name,
        OwnSource(
            args.interactions, args.items, tuple(FeatureFile.parse(f) for f in args.features)
        ),
        args.data_path,
        EventOptions(
            user=args.user_column,
            item=args.item_column,
            time=args.time_column,
            order=args.order_column,
            rating=args.rating_column,
            min_rating=args.min_rating,
            repeats=args.repeats,
            user_core=args.user_core,
            item_core=args.item_core,
            strict=args.strict,
        ),
        ItemOptions(
            args.items_item_column,
            args.title_column,
            tuple(column.strip() for column in args.text_columns.split(",") if column.strip()),
        ),
        text_encoder=args.text_encoder or TFIDF,
        force=args.force,
    )
    print(report.table())
    return 0
