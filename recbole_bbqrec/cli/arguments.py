"""Arguments that several verbs share, and arguments derived from the fields of a dataclass."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, TypeVar

from recbole_bbqrec.cli.grammar import CommandParser, ListAction
from recbole_bbqrec.config.values import parse_overrides
from recbole_bbqrec.errors import UserError, did_you_mean, pip_install
from recbole_bbqrec.run_files.output_folder import check_output_folder

if TYPE_CHECKING:
    from recbole_bbqrec.experiment.store.store import RunStore

Record = TypeVar("Record")
Add = Callable[..., None]  # adds an argument, see CommandParser.group

_CLUSTER = """\
Without --ray, runs go one after another. All nodes need this package and the folder of --runs."""
_MODEL_OPTIONS = """\
Any option of the YAML files, as --key=value with the equals sign, goes to the models that read it;
as --MODEL.key=value it goes to one model: --epochs=20 --BBQRec.num_beams=50."""


def describe(
    parser: CommandParser, purpose: str, example: str, notes: str = "", runs_can_fail: bool = False
) -> None:
    """Set the first and the last part of the help: purpose; notes, exit codes and an example."""
    failed = " 1, a run failed (its log file is named);" if runs_can_fail else ""
    parser.description = purpose
    parser.epilog = f"""\
{notes}

Exit codes: 0, done;{failed} 2, a mistake in the command or the data; 130, interrupted.

Example:

  python -m recbole_bbqrec {parser.verb} {example}"""


def add_config_files(add: Add) -> None:
    """Add ``--config_files``."""
    add("--config_files", "FILE", "YAML files of options; later ones win (default: none)",
        action=ListAction, default=[])  # fmt: skip


def add_data_path(add: Add) -> None:
    """Add ``--data_path``."""
    add("--data_path", "DIR", "folder that holds the data sets", default="dataset")


def add_seeds_and_dry_run(add: Add) -> None:
    """Add ``--seeds`` and ``--dry_run``."""
    add("--seeds", "N", "one number: how many seeds, counted up from the configured one; several "
        "numbers: the seeds themselves", action=ListAction, item=int, default=[1])  # fmt: skip
    add("--dry_run", None, "print what would run, and stop")


def add_run_store(parser: CommandParser) -> None:
    """Add the groups of verbs that keep runs in a store: where it is, and options of the models."""
    add = parser.group("stored runs")
    add("--runs", "DIR", "folder of the finished runs", default="runs")
    add("--any_version", None, "accept stored runs made by another version of the code")
    add = parser.group("cluster", _CLUSTER)
    add("--ray", "ADDRESS", "runs at the same time over a Ray cluster: its address, `auto` for the "
        "one of this machine, or nothing for this machine alone (default: one run after another)",
        nargs="?", const="local")  # fmt: skip
    add("--ray_cpus", "N", "CPUs of a run", type=float, default=1.0)
    add("--ray_gpus", "N", "GPUs of a run; a fraction shares one", type=float, default=0.0)
    add("--ray_memory", "GIB", "memory of a run in GiB (default: not reserved)", type=float)
    add(
        "--ray_runs", "N", "runs at the same time (default: as many as there is room for)", type=int
    )
    add_config_files(parser.group("model options", _MODEL_OPTIONS))


def run_store(args: argparse.Namespace) -> RunStore:
    """Return the run store of the arguments of :func:`add_run_store`.

    Raises:
        UserError: an argument is out of range, or the Ray cluster cannot be used.
    """
    from recbole_bbqrec.experiment.store.ray_cluster import RayCluster, RunNeeds
    from recbole_bbqrec.experiment.store.store import RunStore

    given = {n: getattr(args, n) for n in ("ray_cpus", "ray_gpus", "ray_memory", "ray_runs")}
    for name, value in given.items():
        if value is not None and (value < 0 or (value == 0 and name != "ray_gpus")):
            raise UserError(f"Option `--{name}` is {value:g}; expected a number above 0.")
        if args.ray is None and value != args.parser.get_default(name):
            raise UserError(f"Option `--{name}` needs --ray; give it too, or leave this out.")
    if args.ray is None:
        return RunStore(args.runs, any_version=args.any_version)
    memory = None if args.ray_memory is None else int(args.ray_memory * 2**30)
    needs = RunNeeds(args.ray_cpus, args.ray_gpus, memory, args.ray_runs)
    cluster = RayCluster(args.ray, Path(args.runs).absolute(), needs)
    return RunStore(args.runs, any_version=args.any_version, launcher=cluster)


def model_options(
    args: argparse.Namespace, models: Sequence[str], datasets: Sequence[str]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return the options given for all models, and those given for each model alone.

    Raises:
        UserError: an option given twice, a model that is not among ``models``, or a misspelt
            argument of the verb.
    """
    from recbole_bbqrec.config.config import options_read

    common: dict[str, Any] = {}
    own: dict[str, dict[str, Any]] = {}
    for name, value in parse_overrides(args.options).items():
        model, dot, key = name.rpartition(".")
        if dot and model not in models:
            raise UserError(
                f"Option `--{name}` is for `{model}`, which is not among the models of this "
                f"command: {', '.join(models)}."
            )
        if key in ("model", "dataset"):  # every run reads them, but the verb's arguments set them
            raise args.parser.unknown(f"--{name}")
        (own.setdefault(model, {}) if dot else common)[key] = value
    if common:
        refuse_misspelt(args, {key for m in models for d in datasets for key in options_read(m, d)})
    return common, own


def refuse_misspelt(args: argparse.Namespace, known: Iterable[str]) -> None:
    """Raise a UserError for an option nearer to an argument of the verb than to ``known`` ones."""
    known = sorted(known)
    names = [name[2:] for name in args.parser.names]
    for word in args.options:
        key = word[2:].partition("=")[0]
        if key not in known and did_you_mean(key, [*known, *names]) != did_you_mean(key, known):
            raise args.parser.unknown(word)


def refuse_file(output: Path | None) -> None:
    """Raise a UserError if the output folder is a file, or cannot be written to."""
    if output is not None:
        check_output_folder("--output", output)


def print_results(
    output: Path,
    tables: Sequence[Any],
    rows: Mapping[str, Sequence[dict[str, Any]]],
    charts: Mapping[str, Callable[[Path], None]],
) -> None:
    """Print the tables; write them, the CSV rows and the charts into ``output``."""
    from recbole_bbqrec.experiment.comparison.files import write_results

    text, names = write_results(output, tables, rows, charts)
    print(text)
    if not set(charts) <= set(names):
        print(f"No chart: it needs matplotlib ({pip_install('plots')}).")
    print(f"Written to {output}: {', '.join(names)}")


class Field(NamedTuple):
    """The argument for one field of a dataclass; its type and default are the field's."""

    name: str
    metavar: str | None
    help: str
    choices: Sequence[str] | None = None


def add_fields(add: Add, record: type, arguments: Mapping[str, Field]) -> None:
    """Add an argument for each field of the dataclass ``record`` that ``arguments`` names."""
    by_name = {field.name: field for field in fields(record)}
    for name, (option, metavar, text, choices) in arguments.items():
        settings: dict[str, Any] = {"default": by_name[name].default}
        kind = str(by_name[name].type).replace(" | None", "")
        if choices:
            settings["choices"] = choices
        elif kind.startswith("tuple"):
            settings.update(action=ListAction, separators=r"\s*,\s*")
        elif kind in ("int", "float"):
            settings["type"] = {"int": int, "float": float}[kind]
        add(f"--{option}", metavar, text, **settings)


def read_fields(
    record: type[Record], args: argparse.Namespace, arguments: Mapping[str, Field]
) -> Record:
    """Build the dataclass from the parsed arguments of :func:`add_fields`."""
    values = {name: getattr(args, argument.name) for name, argument in arguments.items()}
    return record(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
