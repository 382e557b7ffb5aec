"""``python -m recbole_bbqrec prepare NAME --source DIR``."""

from __future__ import annotations

import argparse

from recbole_bbqrec.data.amazon import PRECOMPUTED, prepare_from_source


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``prepare``."""
    parser.add_argument("name", help="name of the data set to write, for example Beauty")
    parser.add_argument(
        "--source",
        required=True,
        metavar="DIR",
        help="folder with interactions.tsv.gz and items.jsonl.gz, and optionally text_*.npy and "
        "image_labels_multihot.npz with image_items.txt",
    )
    parser.add_argument(
        "--text-encoder",
        default="tfidf",
        metavar="ENCODER",
        help=f"tfidf (default; nothing to download), {PRECOMPUTED} (the source's text_*.npy), or "
        "the name or folder of a sentence-transformers model",
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
        help="replace a prepared data set; files in its folder made by others are kept",
    )


def main(args: argparse.Namespace) -> int:
    """Prepare the data set and print its row of Table 1.

    Raises:
        UserError: see :func:`recbole_bbqrec.data.amazon.prepare_from_source`.
    """
    report = prepare_from_source(
        args.name, args.source, args.data_path, text_encoder=args.text_encoder, force=args.force
    )
    print(report.table())
    return 0
