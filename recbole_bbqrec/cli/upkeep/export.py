"""``python -m recbole_bbqrec export``: a finished run as a folder that loads without RecBole."""

from __future__ import annotations

import argparse
from pathlib import Path

from recbole_bbqrec.cli.arguments import describe
from recbole_bbqrec.cli.grammar import CommandParser

DESCRIPTION = """\
Write the model of a finished run to a folder that loads with torch, NumPy and safetensors alone:
weights, items, options, a model card, and the network's steps as programs of torch.export."""


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of ``export``."""
    describe(parser, DESCRIPTION, "saved/RUN --output=exported")
    add = parser.group("finished run")
    add("run", "RUN", "saved/<Model>-<time>, or the .pth file beside it", type=Path)
    add = parser.group("output")
    add("--output", "DIR", "folder to write; must not exist", type=Path, required=True)
    add("--onnx", None, "write the programs as ONNX files, too")


def main(args: argparse.Namespace) -> int:
    """Export the run and print the names of the files.

    Raises:
        UserError: the run is not one that can be exported, the folder exists, or a library is
            missing.
    """
    from recbole_bbqrec.upkeep.export import export

    exported = export(args.run, args.output, args.onnx)
    print(f"Written to {args.output}: {', '.join(exported.files)}")
    if exported.no_programs is not None:
        print(f"No programs of torch.export: {exported.no_programs}.")
    return 0
