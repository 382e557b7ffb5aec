"""``python -m recbole_bbqrec tune``: search a model's options on the validation split."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from recbole_bbqrec.atomic import write_text
from recbole_bbqrec.cli.arguments import FAILED, add_run_arguments, parse_settings
from recbole_bbqrec.config.values import parse_value
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.experiment.comparison.tables import csv_text
from recbole_bbqrec.experiment.store.run_key import NOT_IN_KEY
from recbole_bbqrec.experiment.store.store import Run, RunStore
from recbole_bbqrec.experiment.tune.search_space import Parameter, read_space
from recbole_bbqrec.experiment.tune.tune import (
    BAYES,
    EXHAUSTIVE,
    RANDOM,
    Search,
    Trial,
    fixed_tokenizer,
    listed,
)

EPILOG = """\
The parameter file has RecBole's syntax, one option a line:

  learning_rate  loguniform  -8,-4       e^-8 to e^-4, even in the logarithm
  dropout        uniform     0.0,0.5
  hidden_size    quniform    64,256,64   multiples of 64
  encoder_layers choice      [1,2,4]

Trials are judged by `valid_metric` on the validation split; the test split is not looked at. The
same command given again goes on where it was interrupted. --fixed-tokenizer trains phase one of a
generative model once and searches phase two on its semantic IDs.

Exit code: 0; 1 if a trial failed; 2 for a mistake in the command.
"""

#: Options of the best trial that do not belong in a configuration to be used elsewhere.
_NOT_IN_BEST = {"seed", *NOT_IN_KEY}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``tune``."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument("--model", required=True, help="see `models`")
    parser.add_argument("--dataset", required=True, metavar="NAME")
    parser.add_argument(
        "--params", required=True, metavar="FILE", help="the options to search, see below"
    )
    parser.add_argument(
        "--algo",
        choices=(EXHAUSTIVE, RANDOM, BAYES),
        default=EXHAUSTIVE,
        help="every combination (default), random draws, or optuna's TPE; the last two need optuna",
    )
    parser.add_argument(
        "--trials",
        type=int,
        metavar="N",
        help="how many (default: all combinations, or 20 for random and bayes)",
    )
    parser.add_argument(
        "--fixed-tokenizer",
        action="store_true",
        help="train phase one once, and search phase two alone",
    )
    add_run_arguments(parser)
    parser.add_argument(
        "--output",
        metavar="DIR",
        help="folder for best.yaml and trials.csv (default: tuning/MODEL-DATASET)",
    )


def main(args: argparse.Namespace) -> int:
    """Search, and write the best options and all trials.

    Raises:
        UserError: a name, option or file is not as it must be, or no trial has a score.
    """
    if args.trials is not None and args.trials < 1:
        raise UserError(f"Option `--trials` is {args.trials}; expected at least 1.")
    space = read_space(args.params)
    output = Path(args.output or f"tuning/{args.model}-{args.dataset}")
    _check_output(output / "best.yaml", _search_line(args, space))
    files = tuple(name for names in args.config_files for name in names.split())
    common, own = parse_settings(args.set, [args.model])
    base = Run(args.model, args.dataset, {**common, **own.get(args.model, {})}, files)
    store = RunStore(args.runs, any_version=args.any_version)
    searched = base
    if args.fixed_tokenizer:
        path = fixed_tokenizer(store, base)
        searched = replace(base, overrides={**base.overrides, "tokenizer_path": str(path)})
    search = Search(store, searched, space, lambda trials: _write_trials(trials, space, output))
    search.run(args.algo, args.trials)
    best = search.best
    if best is None:
        raise UserError(
            f"No trial of the search has a score. The first one: {search.trials[0].error}"
        )
    _write_best(search, best, args, output, _search_line(args, space))
    failed = sum(trial.score is None for trial in search.trials)
    print(
        f"\nbest of {len(search.trials)} trials{f' ({failed} failed)' if failed else ''}: "
        f"{listed(best.values)}\nvalidation {search.metric} {best.score:.6f} (trial {best.number})"
        f"\nWritten to {output}: best.yaml, trials.csv\nTest it: {_command(best, args, output)}"
    )
    return FAILED if failed else 0


def _command(best: Trial, args: argparse.Namespace, output: Path) -> str:
    """What tests the best trial: its file, and the options given that are not in the file."""
    path = str(output / "best.yaml")
    inside, beside = _options(best, args)
    if path.split() != [path]:  # `--config_files` lists files with blanks between them
        path, beside = "", {**inside, **beside}
    options = {"model": args.model, "dataset": args.dataset}
    options.update({"config_files": path} if path else {}, **beside)
    words = [f"--{key}={_text(value)}" for key, value in options.items()]
    return " ".join(["python -m recbole_bbqrec run", *map(shlex.quote, words)])


def _options(best: Trial, args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """All options given and found, but model and data set: those for the file, and the others."""
    assert best.outcome is not None
    given = best.outcome.planned.config.explicit
    # Semantic IDs that the search made for itself are no option of the user's.
    left_out = {"model", "dataset"} | ({"tokenizer_path"} if args.fixed_tokenizer else set())
    options = {key: value for key, value in given.items() if key not in left_out}
    inside = {key: value for key, value in options.items() if key not in _NOT_IN_BEST}
    return inside, {key: value for key, value in options.items() if key in _NOT_IN_BEST}


def _text(value: Any) -> str:
    """A value as `run` reads it back from the command line."""
    if isinstance(value, str) and parse_value(value) == value:
        return value
    return repr(value).replace("inf", "1e999") if isinstance(value, float) else repr(value)


def _search_line(args: argparse.Namespace, space: list[Parameter]) -> str:
    """Return the line of ``best.yaml`` that says which search it belongs to."""
    return f"# Search: {args.model} on {args.dataset}, {'; '.join(map(str, space))}"


def _check_output(best: Path, search_line: str) -> None:
    """Refuse to replace a ``best.yaml`` that is not of this search, before any trial runs."""
    if not best.exists():
        return
    lines = best.read_text(encoding="utf-8", errors="replace").splitlines()
    if search_line not in lines:
        other = next((line[2:] for line in lines if line.startswith("# Search: ")), "unknown")
        raise UserError(
            f"The file {best} is of another search ({other}). Give another folder with --output, "
            "or move the file away."
        )


def _write_best(
    search: Search, best: Trial, args: argparse.Namespace, output: Path, search_line: str
) -> None:
    """Write all options given and found, so that the file alone repeats the best trial."""
    options, _ = _options(best, args)
    text = (
        f"# {args.model} on {args.dataset}: best of {len(search.trials)} trials ({args.algo}) by "
        f"validation {search.metric}, {best.score:.6f}, seed {search.seed}.\n"
        f"{search_line}\n# {_command(best, args, output)}\n"
        f"{yaml.safe_dump(options, sort_keys=True)}"
    )
    write_text(output / "best.yaml", text)


def _write_trials(trials: list[Trial], space: list[Parameter], output: Path) -> None:
    """One row a trial, in the order of the search; written anew after each."""
    metrics: dict[str, None] = {}
    for trial in trials:
        metrics.update(dict.fromkeys(_valid_result(trial)))
    rows = []
    for trial in trials:
        result = (trial.outcome.result if trial.outcome else None) or {}
        rows.append(
            {
                "trial": trial.number,
                **{parameter.name: trial.values[parameter.name] for parameter in space},
                "score": trial.score,
                **{f"valid_{name}": _valid_result(trial).get(name) for name in metrics},
                "train_seconds": result.get("seconds", {}).get("train"),
                "error": trial.error,
                "run": trial.outcome.directory if trial.outcome else None,
            }
        )
    write_text(output / "trials.csv", csv_text(rows))


def _valid_result(trial: Trial) -> dict[str, Any]:
    result = trial.outcome.result if trial.outcome else None
    return dict(result["best_valid_result"]) if result else {}
