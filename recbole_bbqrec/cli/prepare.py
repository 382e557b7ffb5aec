"""``python -m recbole_bbqrec prepare NAME [--source DIR | --raw [DIR] | --interactions FILE]``."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from recbole_bbqrec.cli import prepare_tables as own_cli
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.prepare.folder import PRECOMPUTED, TFIDF, prepare_from_source
from recbole_bbqrec.prepare.mcauley.build import RAW_FOLDER, prepare_from_raw
from recbole_bbqrec.prepare.mcauley.files import CATEGORIES, MIRRORS, Mirror
from recbole_bbqrec.prepare.sentences import SENTENCE_T5

_DEFAULT_FOLDER = ""  # --raw without a folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``prepare``."""
    categories = ", ".join(CATEGORIES)
    parser.description = (
        "Make a data set. Give its name and one kind of source; without any, "
        f"{categories} are made from McAuley's files of 2014, which are downloaded."
    )
    parser.add_argument("name", help="name of the data set to write, for example Beauty")
    parser.add_argument(
        "--source",
        metavar="DIR",
        help="folder with interactions.tsv.gz and items.jsonl.gz, and optionally text_*.npy and "
        "image_labels_multihot.npz with image_items.txt",
    )
    parser.add_argument(
        "--raw",
        metavar="DIR",
        nargs="?",
        const=_DEFAULT_FOLDER,
        help="folder with McAuley's reviews_<Category>_5.json.gz, meta_<Category>.json.gz and "
        f"image_features_<Category>.b ({categories}); those absent are downloaded to it (default "
        f"folder: {RAW_FOLDER} in the folder of the data sets)",
    )
    parser.add_argument(
        "--text-encoder",
        metavar="ENCODER",
        help=f"name or folder of a sentence-transformers model, {TFIDF} (nothing to download), or "
        f"{PRECOMPUTED} (the source's text_*.npy); default: {TFIDF} with --source and "
        f"--interactions, else {SENTENCE_T5}",
    )
    parser.add_argument(
        "--no-images",
        action="store_true",
        help="leave the image features out, the largest of McAuley's files by far (4 to 25 GB)",
    )
    parser.add_argument(
        "--mirror",
        metavar="URL",
        help="download from this server, laid out as " + MIRRORS[0].base,
    )
    parser.add_argument(
        "--data-path",
        default="dataset",
        metavar="DIR",
        help="folder that holds the data sets (default: dataset)",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="replace a prepared data set, with the features made for it; files in its folder "
        "made by others are kept and named",
    )
    own_cli.add_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Prepare the data set and print its row of Table 1.

    Raises:
        UserError: more than one kind of source or none, or whatever the one given says.
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


# The option that names a source -> what reads it.
_KINDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "source": _from_source,
    "raw": _from_raw,
    "interactions": own_cli.main,
}
