"""``python -m recbole_bbqrec prepare``: make a data set from source files."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from recbole_bbqrec.cli import prepare_tables
from recbole_bbqrec.cli.arguments import add_data_path, describe
from recbole_bbqrec.cli.grammar import CommandParser
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.prepare.folder import PRECOMPUTED, TFIDF, prepare_from_source
from recbole_bbqrec.prepare.mcauley.build import RAW_FOLDER, prepare_from_raw
from recbole_bbqrec.prepare.mcauley.files import CATEGORIES, MIRRORS, Mirror
from recbole_bbqrec.prepare.sentences import SENTENCE_T5

_DEFAULT_FOLDER = ""  # value of --raw without a folder


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of ``prepare``."""
    categories = ", ".join(CATEGORIES)
    purpose = (
        "Make a data set. Give its name and one source: --source, --raw or --interactions. Without "
        f"any, {categories} are made from McAuley's files of 2014, which are downloaded."
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
    prepare_tables.add_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Prepare the data set and print its row of Table 1.

    Raises:
        UserError: no source or more than one; or the source is faulty.
    """
    given = [kind for kind in _KINDS if getattr(args, kind) is not None]
    if len(given) > 1:
        raise UserError(
            f"{' and '.join('--' + kind for kind in given)} are given; expected one kind of source."
        )
    if not given and args.name not in CATEGORIES:
        raise UserError(
            f"No source is given for {args.name!r}; expected "
            f"{' or '.join('--' + kind for kind in _KINDS)}. Only {', '.join(CATEGORIES)} can be "
            "downloaded."
        )
    if "interactions" not in given and (args.items is not None or args.features):
        raise UserError("--items and --features are for --interactions, which is not given.")
    return _KINDS[given[0] if given else "raw"](args)


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


#: Option that names a source, to the function that reads it.
_KINDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "source": _from_source,
    "raw": _from_raw,
    "interactions": prepare_tables.main,
}
