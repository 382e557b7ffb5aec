"""``python -m recbole_bbqrec inspect``: statistics and item neighbours of a data set."""

from __future__ import annotations

import argparse
from pathlib import Path

from recbole_bbqrec.cli.arguments import add_data_path, describe
from recbole_bbqrec.cli.grammar import CommandParser
from recbole_bbqrec.errors import UserError, pip_install
from recbole_bbqrec.inspection.measures import inspect_folder
from recbole_bbqrec.inspection.text import as_text


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of ``inspect``."""
    purpose = "Show statistics of a prepared data set, and neighbours of its items."
    describe(parser, purpose, "Mini")
    add = parser.group("data")
    add("name", "NAME", "name of a prepared data set, such as Mini")
    add_data_path(add)
    add = parser.group("output")
    add("--item", "TOKEN", "show the neighbours of this item; may be repeated (default: the most "
        "popular items)", action="append", default=[])  # fmt: skip
    add("--output", "FILE", "picture to write, .png or .svg; needs "
        f"{pip_install('plots')} (default: NAME-inspect.png)", type=Path)  # fmt: skip


def main(args: argparse.Namespace) -> int:
    """Print the statistics and draw them.

    Raises:
        UserError: see :func:`recbole_bbqrec.inspection.measures.inspect_folder`; or ``--output``
            cannot be drawn or written.
    """
    if args.output is not None and args.output.suffix.lower() not in (".png", ".svg"):
        raise UserError(
            f"Option `--output` is {str(args.output)!r}; expected a file name that ends in .png or "
            ".svg."
        )
    inspection = inspect_folder(args.name, args.data_path, args.item)
    print(as_text(inspection))
    path = args.output or Path(f"{args.name}-inspect.png")
    try:
        from recbole_bbqrec.inspection.plot import save_picture

        save_picture(inspection, path)
    except ImportError as error:
        hint = f"a picture needs matplotlib: {pip_install('plots')}"
        if args.output is not None:
            raise UserError(f"Cannot write --output {path}: {hint}.") from error
        print(f"\nNo picture ({hint}).")
        return 0
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error}); choose another --output.") from error
    print(f"\nPicture: {path}")
    return 0
