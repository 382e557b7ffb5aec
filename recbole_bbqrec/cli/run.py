"""``python -m recbole_bbqrec run``: train and test one model."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recbole_bbqrec.cli.arguments import add_config_files, describe
from recbole_bbqrec.cli.grammar import CommandParser
from recbole_bbqrec.config.values import parse_overrides
from recbole_bbqrec.errors import UserError, did_you_mean
from recbole_bbqrec.model.specs import check_name, model_names
from recbole_bbqrec.prepare.mini import NAME
from recbole_bbqrec.prepare.on_demand import ML_100K, missing

OUTPUT = """\
The final block of results goes to standard output. The log and the progress go to standard error.
The file in log/ has the whole log in any case."""
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
    add = parser.group("output", OUTPUT)
    add("--quiet", None, "log warnings alone, and show no progress")
    add("--verbose", None, "log the list of all options, the data set and the network, too")
    add_config_files(parser.group("model options", OPTIONS))


def main(args: argparse.Namespace) -> int:
    """Train and test the model.

    Raises:
        UserError: see :func:`recbole_bbqrec.quick_start.run`.
    """
    if args.quiet and args.verbose:
        raise UserError("Options `--quiet` and `--verbose` exclude each other; remove one.")
    prepare = [] if args.prepare is None else [f"--prepare={args.prepare}"]
    name = (args.model or "").rpartition(":")[2]
    own = f"--{name}."  # --BBQRec.num_beams=50, as where several models run
    words = [f"--{w[len(own) :]}" if w.startswith(own) else w for w in [*args.options, *prepare]]
    overrides = {**({"show_progress": False} if args.quiet else {}), **parse_overrides(words)}
    _check_names(args, overrides)
    from recbole_bbqrec.quick_start import run
    from recbole_bbqrec.run_files.console import Shown, show

    shown = Shown.WARNINGS if args.quiet else Shown.DETAILS if args.verbose else Shown.NORMAL
    with show(shown, block_on_stdout=True):
        run(args.model, args.dataset, args.config_files, overrides)
    return 0


def _check_names(args: argparse.Namespace, overrides: Mapping[str, Any]) -> None:
    """Refuse a misspelt name before torch and RecBole are imported, which takes seconds.

    A data set is looked for where nothing but the command line says where it is.

    Raises:
        UserError: no such argument, model or data set.
    """
    if args.model is not None:
        check_name(args.model)
    if args.config_files or "resume" in overrides:
        return
    for name in ("model", "dataset"):
        near = [w for w in args.options if did_you_mean(w[2:].partition("=")[0], [name])]
        if getattr(args, name) is None and near:
            raise args.parser.unknown(near[0])
    moved = {"prepare", "benchmark_filename"} & set(overrides)
    listed = args.model in model_names()  # a class of the user's own may say where its data are
    if moved or not listed or args.dataset in (None, ML_100K, NAME):
        return
    folder = Path(str(overrides.get("data_path", "dataset"))) / args.dataset
    if not folder.exists():
        raise missing(args.dataset, folder)
