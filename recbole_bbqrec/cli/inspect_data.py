"""``python -m recbole_bbqrec inspect NAME``."""

from __future__ import annotations

import argparse
from pathlib import Path

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.inspection.measures import inspect_folder
from recbole_bbqrec.inspection.text import as_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``inspect``."""
    parser.add_argument("name", help="name of a prepared data set, for example Mini")
    parser.add_argument(
        "--data-path", default="dataset", metavar="DIR",
        help="folder that holds the data sets (default: dataset)",
    )  # fmt: skip
    parser.add_argument(
        "--item", action="append", default=[], metavar="TOKEN",
        help="show the neighbours of this item (default: the most popular ones). May be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=Path, metavar="PNG",
        help="picture to write (default: NAME-inspect.png; needs pip install "
        "'recbole_bbqrec[plots]')",
    )  # fmt: skip


def main(args: argparse.Namespace) -> int:
    """Print the inspection and draw it.

    Raises:
        UserError: see :func:`recbole_bbqrec.inspection.measures.inspect_folder`; also a picture
            that was asked for and cannot be drawn or written.
    """
    if args.output is not None and args.output.suffix.lower() != ".png":
        raise UserError(
            f"--output is {str(args.output)!r}; expected a file name that ends in .png."
        )
    found = inspect_folder(args.name, args.data_path, args.item)
    print(as_text(found))
    path = args.output or Path(f"{args.name}-inspect.png")
    try:
        from recbole_bbqrec.inspection.plot import save_png

        save_png(found, path)
    except ImportError as error:
        hint = "a picture needs matplotlib: pip install 'recbole_bbqrec[plots]'"
        if args.output is not None:
            raise UserError(f"--output {path}: {hint}.") from error
        print(f"\nNo picture ({hint}).")
        return 0
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error}); choose another --output.") from error
    print(f"\nPicture: {path}")
    return 0
