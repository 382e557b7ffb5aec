"""``python -m recbole_bbqrec init``: a commented YAML file of options to start from."""

from __future__ import annotations

import argparse
from pathlib import Path

from recbole_bbqrec.cli.arguments import describe
from recbole_bbqrec.cli.grammar import CommandParser


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of ``init``."""
    purpose = "Write a YAML file with every option of a model, commented out, with its meaning."
    describe(parser, purpose, "mine --model=BBQRec --dataset=Mini")
    add = parser.group("file")
    add("name", "NAME", "name of the file to write; .yaml is added; a file is never replaced")
    add("--model", "MODEL", "the model whose options are written", default="BBQRec")
    add(
        "--dataset",
        "DATASET",
        "the data set that the values are for",
        default="ml-100k",
    )


def main(args: argparse.Namespace) -> int:
    """Write the file.

    Raises:
        UserError: the file exists, or the model is unknown.
    """
    from recbole_bbqrec.onboarding.start_file import write_start_file

    path = Path(args.name)
    path = path if path.suffix in (".yaml", ".yml") else path.with_name(f"{path.name}.yaml")
    write_start_file(path, args.model, args.dataset)
    print(f"Written to {path}. Change it, then run:")
    print(
        f"  python -m recbole_bbqrec run --model={args.model} --dataset={args.dataset} "
        f"--config_files={path}"
    )
    return 0
