"""The part of ``prepare`` that reads a user's own tables: ``prepare NAME --interactions=FILE``."""

from __future__ import annotations

import argparse
from pathlib import Path

from recbole_bbqrec.cli.arguments import Field, add_fields, read_fields
from recbole_bbqrec.cli.grammar import CommandParser
from recbole_bbqrec.prepare.folder import TFIDF
from recbole_bbqrec.prepare.tables.build import OwnSource, prepare_own
from recbole_bbqrec.prepare.tables.events import REPEATS, EventOptions
from recbole_bbqrec.prepare.tables.features import FeatureFile
from recbole_bbqrec.prepare.tables.items import ItemOptions

DESCRIPTION = """\
Tables are .csv, .tsv (also .gz, .zst) or .parquet. Columns with usual names (user_id, product_id,
timestamp, ...) are found. Every row left out is counted and reported."""

_USUAL = "(default: the usual names)"
_CORE = "leave out {}s with fewer interactions, repeatedly; 1 keeps all"

#: Field of EventOptions -> the argument that sets it.
EVENTS = {
    "user": Field("user_column", "COLUMN", f"column of the user {_USUAL}"),
    "item": Field("item_column", "COLUMN", f"column of the item {_USUAL}"),
    "time": Field("time_column", "COLUMN", f"column of numbers or ISO 8601 dates {_USUAL}"),
    "order": Field("order_column", "COLUMN", "column of numbers that order a user's interactions, "
                   f"instead of a time {_USUAL}"),
    "rating": Field("rating_column", "COLUMN", f"column of the rating, for --min_rating {_USUAL}"),
    "min_rating": Field("min_rating", "X", "leave out lower rated interactions (default: none)"),
    "repeats": Field("repeats", None, "interactions of a user with the same item: keep all, or the "
                     "first or the last. The same user, item and time twice always counts once",
                     REPEATS),
    "user_core": Field("user_core", "N", _CORE.format("user")),
    "item_core": Field("item_core", "N", _CORE.format("item")),
    "strict": Field("strict", None, "refuse faulty rows instead of leaving them out"),
}  # fmt: skip
#: Field of ItemOptions -> the argument that sets it.
ITEMS = {
    "item": Field("items_item_column", "COLUMN", f"column of the item in --items {_USUAL}"),
    "title": Field("title_column", "COLUMN", f"column of the title in --items {_USUAL}"),
    "text": Field("text_columns", "COLUMN", "columns of --items that make an item's text (default: "
                  "title, name, description, brand, categories, those that it has)"),
}  # fmt: skip


def add_arguments(parser: CommandParser) -> None:
    """Add the groups of arguments."""
    add = parser.group("your own tables", DESCRIPTION)
    add("--interactions", "FILE", "table with a row an interaction; without a time or an order "
        "column, its rows must be in time order (default: another source)", type=Path)  # fmt: skip
    add("--items", "FILE", "table of items, also .jsonl: titles and texts (default: none)",
        type=Path)  # fmt: skip
    add("--features", "NAME=FILE.npy[,ITEMS.txt]", "feature matrix of a modality. Its rows are "
        "the items in ITEMS.txt, one a line, or without it those of --items, in that order; may be "
        "repeated (default: none)", action="append", default=[])  # fmt: skip
    add_fields(parser.group("your own interactions"), EventOptions, EVENTS)
    add_fields(parser.group("your own items"), ItemOptions, ITEMS)


def main(args: argparse.Namespace) -> int:
    """Prepare the data set, and print the counts of rows kept and left out.

    Raises:
        UserError: see :func:`recbole_bbqrec.prepare.tables.build.prepare_own`.
    """
    features = tuple(map(FeatureFile.parse, args.features))
    report = prepare_own(
        args.name,
        OwnSource(args.interactions, args.items, features),
        args.data_path,
        read_fields(EventOptions, args, EVENTS),
        read_fields(ItemOptions, args, ITEMS),
        text_encoder=args.text_encoder or TFIDF,
        force=args.force,
    )
    print(report.table())
    return 0
