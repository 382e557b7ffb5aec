"""``python -m recbole_bbqrec run``: train and test one model."""

from __future__ import annotations

import argparse

from recbole_bbqrec.cli.arguments import add_config_files, describe
from recbole_bbqrec.cli.grammar import CommandParser
from recbole_bbqrec.config.values import parse_overrides
from recbole_bbqrec.errors import UserError

OPTIONS = """\
Any option of the YAML files, as --key=value with the equals sign. Often used:

  --data_path=DIR              folder that holds the data sets (default: dataset)
  --epochs=N                   epochs of training (default: the model's)
  --modalities=[text,image]    signals (default: the data set's)
  --resume=auto                go on with an interrupted run"""


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of ``run``."""
    describe(parser, "Train and test one model on one data set.", "--model=BBQRec --dataset=Mini")
    add = parser.group("what to run")
    add("--model", "-m", "MODEL", "BBQRec, SASRec, ...; `models` lists all. A class of your own is "
        "package.module:Class (default: that of the run to resume)")  # fmt: skip
    add("--dataset", "-d", "NAME", "data set, <data_path>/NAME/NAME.inter (default: that of the "
        "run to resume)")  # fmt: skip
    add("--prepare", "BOOL", "make the data set first if it is absent; Amazon categories are "
        "downloaded (default: False)", nargs="?", const="True")  # fmt: skip
    add = parser.group("output")
    add("--quiet", None, "show warnings and the final block alone")
    add("--verbose", None, "show the list of options, the data set and the network, too")
    add_config_files(parser.group("model options", OPTIONS))


def main(args: argparse.Namespace) -> int:
    """Train and test the model.

    Raises:
        UserError: see :func:`recbole_bbqrec.quick_start.run`.
    """
    from recbole_bbqrec.quick_start import run
    from recbole_bbqrec.run_files.console import Shown, show
    from recbole_bbqrec.run_files.final_block import final_block

    if args.quiet and args.verbose:
        raise UserError("Options `--quiet` and `--verbose` exclude each other; remove one.")
    show(Shown.WARNINGS if args.quiet else Shown.DETAILS if args.verbose else Shown.NORMAL)
    prepare = [] if args.prepare is None else [f"--prepare={args.prepare}"]
    name = (args.model or "").rpartition(":")[2]
    own = f"--{name}."  # --BBQRec.num_beams=50, as where several models run
    words = [f"--{w[len(own) :]}" if w.startswith(own) else w for w in [*args.options, *prepare]]
    overrides = {**({"show_progress": False} if args.quiet else {}), **parse_overrides(words)}
    result = run(args.model, args.dataset, args.config_files, overrides)
    if args.quiet:
        print(final_block(result))
    return 0
