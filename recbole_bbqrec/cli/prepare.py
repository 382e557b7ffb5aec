"""``python -m recbole_bbqrec prepare``: make a data set from source files."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from recbole_bbqrec.cli.arguments import Field, add_data_path, add_fields, describe, read_fields
from recbole_bbqrec.cli.grammar import CommandParser
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.prepare import mini
from recbole_bbqrec.prepare.encoders.photos import CLIP
from recbole_bbqrec.prepare.encoders.sentences import SENTENCE_T5
from recbole_bbqrec.prepare.folder import PRECOMPUTED, TFIDF, prepare_from_source
from recbole_bbqrec.prepare.mcauley.build import RAW_FOLDER, prepare_from_raw
from recbole_bbqrec.prepare.mcauley.files import CATEGORIES, MIRRORS, Mirror
from recbole_bbqrec.prepare.on_demand import ML_100K, make_mini
from recbole_bbqrec.prepare.recbole_files import make_ml_100k
from recbole_bbqrec.prepare.tables.build import OwnSource, prepare_own
from recbole_bbqrec.prepare.tables.events import REPEATS, EventOptions
from recbole_bbqrec.prepare.tables.features import FeatureFile
from recbole_bbqrec.prepare.tables.features_only import prepare_features
from recbole_bbqrec.prepare.tables.items import ItemOptions

_DEFAULT_FOLDER = ""  # value of --raw without a folder
_TABLES = """\
Tables are .csv, .tsv (also .gz, .zst), .parquet or JSON lines. Columns with usual names (user_id,
product_id, timestamp, ...) are found. Every row left out is counted and reported."""

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
    "time_format": Field("time_format", "FORMAT", "how times are written, such as %%m/%%d/%%Y "
                         "(default: numbers or ISO 8601)"),
    "separator": Field("separator", "TEXT", "what divides the columns of --interactions, such as "
                       "';' (default: by the suffix)"),
    "no_header": Field("no_header", None, "the first row of --interactions is data; its columns "
                       "are called 1, 2, ..."),
    "keep_all_items": Field("keep_all_items", None, "keep items below the core, and those of "
                            "--items without any interaction, in the catalogue: they get features "
                            "and semantic IDs, and can be recommended, without interactions; those "
                            "below the core count for `recommend --exclude_seen` alone"),
    "strict": Field("strict", None, "refuse faulty rows instead of leaving them out"),
}  # fmt: skip
#: Field of ItemOptions -> the argument that sets it.
ITEMS = {
    "item": Field("items_item_column", "COLUMN", f"column of the item in --items {_USUAL}"),
    "title": Field("title_column", "COLUMN", f"column of the title in --items {_USUAL}"),
    "text": Field("text_columns", "COLUMN", "columns of --items that make an item's text (default: "
                  "title, name, description, brand, categories, those that it has)"),
    "separator": Field("items_separator", "TEXT", "what divides the columns of --items (default: "
                       "by the suffix)"),
    "no_header": Field("items_no_header", None, "the first row of --items is data"),
}  # fmt: skip


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of ``prepare``."""
    categories = ", ".join(CATEGORIES)
    purpose = (
        "Make a data set. Give its name and one source: --source, --raw or --interactions. Without "
        f"any, {categories} are made from McAuley's files of 2014, which are downloaded, and "
        f"{ML_100K} from those that RecBole installs; {mini.NAME} is synthetic."
    )
    example = "Shop --interactions=orders.csv --items=goods.csv"
    notes = "After an interruption, the same command reuses what was downloaded and encoded."
    describe(parser, purpose, example, notes)
    add = parser.group("what to make")
    add("name", "NAME", "name of the data set to write, such as Beauty")
    add_data_path(add)
    add("--force", None, "replace a prepared data set and the features made for it; files in its "
        "folder made by others are kept and named")  # fmt: skip
    add("--text_encoder", "ENCODER", "name or folder of a sentence-transformers model, "
        f"{TFIDF} (nothing to download), or {PRECOMPUTED} (the source's text_*.npy) (default: "
        f"{TFIDF} with --source and --interactions, else {SENTENCE_T5})")  # fmt: skip
    add = parser.group("a folder in the project's format")
    add("--source", "DIR", "folder with interactions.tsv.gz and items.jsonl.gz, and optionally "
        "text_*.npy and image_labels_multihot.npz with image_items.txt (default: another source)"
        )  # fmt: skip
    add = parser.group("McAuley's Amazon files")
    add("--raw", "DIR", "folder with reviews_<Category>_5.json.gz, meta_<Category>.json.gz and "
        f"image_features_<Category>.b ({categories}); those absent are downloaded to it (default "
        f"folder: {RAW_FOLDER} in the folder of the data sets)",
        nargs="?", const=_DEFAULT_FOLDER)  # fmt: skip
    add("--no_images", None, "leave out the image features, by far the largest of McAuley's files "
        "(4 to 25 GB)")  # fmt: skip
    add("--mirror", "URL", "server to download from, laid out like the first of the usual ones "
        f"(default: {', '.join(mirror.base for mirror in MIRRORS)})")  # fmt: skip
    _add_table_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Prepare the data set and print its row of Table 1.

    Raises:
        UserError: no source or more than one; or the source is faulty.
    """
    given = [kind for kind in _KINDS if getattr(args, kind) is not None]
    if args.features_only:
        return _features_only(args, given)
    if len(given) > 1:
        raise UserError(
            f"{' and '.join('--' + kind for kind in given)} are given; expected one kind of source."
        )
    if not given and args.name == ML_100K:
        folder = make_ml_100k(args.data_path, args.text_encoder or TFIDF, args.force)
        print(f"{ML_100K}: {folder}, of the files that RecBole installs")
        return 0
    if not given and args.name == mini.NAME:
        print(f"{mini.NAME}: {make_mini(Path(args.data_path), args.force)}, synthetic")
        return 0
    if not given and args.name not in CATEGORIES:
        raise UserError(
            f"No source is given for {args.name!r}; expected "
            f"{' or '.join('--' + kind for kind in _KINDS)}. Only {', '.join(CATEGORIES)} can be "
            "downloaded."
        )
    own = {"items": args.items, "features": args.features, "images": args.images}
    for name, value in own.items():
        if value and "interactions" not in given:
            raise UserError(
                f"--{name} is for --interactions"
                f"{'' if name == 'images' else ', or for --features_only beside a data set'}; "
                "neither is given."
            )
    return _KINDS[given[0] if given else "raw"](args)


def _features_only(args: argparse.Namespace, given: list[str]) -> int:
    if given:
        raise UserError(
            f"--features_only and --{given[0]} are given; the first keeps the interactions that "
            "are there. Leave one of them out."
        )
    if args.images is not None:
        raise UserError(
            "--images is for --interactions; with --features_only give the photos' vectors, as "
            "--features=image=FILE.npy,ITEMS.txt."
        )
    report = prepare_features(
        args.name,
        OwnSource(None, args.items, tuple(map(FeatureFile.parse, args.features))),
        args.data_path,
        read_fields(ItemOptions, args, ITEMS),
        args.item_column,
        text_encoder=args.text_encoder or TFIDF,
        force=args.force,
        strict=args.strict,
    )
    print(report.table())
    return 0


def _from_source(args: argparse.Namespace) -> int:
    encoder = args.text_encoder or TFIDF
    report = prepare_from_source(args.name, args.source, args.data_path, encoder, args.force)
    print(report.table())
    return 0


def _from_raw(args: argparse.Namespace) -> int:
    report = prepare_from_raw(
        args.name,
        args.data_path,
        raw=args.raw or None,
        text_encoder=args.text_encoder or SENTENCE_T5,
        images=not args.no_images,
        force=args.force,
        mirrors=(Mirror(args.mirror),) if args.mirror else MIRRORS,
    )
    print(report.table())
    if report.image_features:
        print(_how_to_use_both(args.name))
    return 0


def _how_to_use_both(name: str) -> str:
    from recbole_bbqrec.config.config import BBQRecConfig  # takes seconds: RecBole

    if "image" in BBQRecConfig("BBQRec", name)["modalities"]:
        return "Runs use both signals (text alone with --modalities=[text])."
    return "Use both signals with --modalities=[text,image] (without it: text alone)."


def _add_table_arguments(parser: CommandParser) -> None:
    add = parser.group("your own tables", _TABLES)
    add("--interactions", "FILE", "table with a row an interaction; without a time or an order "
        "column, its rows must be in time order (default: another source)", type=Path)  # fmt: skip
    add("--items", "FILE", "table of items, also .jsonl: titles and texts (default: none)",
        type=Path)  # fmt: skip
    add("--features", "NAME=FILE.npy[,ITEMS.txt]", "feature matrix of a modality. Its rows are "
        "the items in ITEMS.txt, one a line, or without it those of --items, in that order; may be "
        "repeated (default: none)", action="append", default=[])  # fmt: skip
    add("--images", "DIR", "folder of photos, ITEM.jpg by raw item token: the modality image "
        "(default: none)", type=Path)  # fmt: skip
    add("--image_encoder", "ENCODER", "of --images: name or folder of an image model of "
        "transformers, such as CLIP, DINOv2, ResNet", default=CLIP)  # fmt: skip
    add("--features_only", None, "make features of --items and --features beside a data set in "
        "RecBole's format; its interactions stay as they are")  # fmt: skip
    add_fields(parser.group("your own interactions"), EventOptions, EVENTS)
    add_fields(parser.group("your own items"), ItemOptions, ITEMS)


def _from_tables(args: argparse.Namespace) -> int:
    features = tuple(map(FeatureFile.parse, args.features))
    report = prepare_own(
        args.name,
        OwnSource(args.interactions, args.items, features, args.images),
        args.data_path,
        read_fields(EventOptions, args, EVENTS),
        read_fields(ItemOptions, args, ITEMS),
        text_encoder=args.text_encoder or TFIDF,
        image_encoder=args.image_encoder,
        force=args.force,
    )
    print(report.table())
    return 0


#: Option that names a source, to the function that reads it.
_KINDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "source": _from_source,
    "raw": _from_raw,
    "interactions": _from_tables,
}
