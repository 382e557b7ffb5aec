"""``python -m recbole_bbqrec tune``: search a model's options on the validation split."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from recbole_bbqrec.cli.arguments import (
    add_run_store,
    describe,
    model_options,
    refuse_file,
    run_store,
)
from recbole_bbqrec.cli.grammar import FAILED, CommandParser
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.experiment.store.store import Run
from recbole_bbqrec.experiment.tune.best import BestTrial, check_best, search_label, write_trials
from recbole_bbqrec.experiment.tune.search_space import read_space
from recbole_bbqrec.experiment.tune.tune import (
    BAYES,
    EXHAUSTIVE,
    RANDOM,
    Search,
    fixed_tokenizer,
    listed,
)
from recbole_bbqrec.model.registry import spec

NOTES = """\
The parameter file has RecBole's syntax, one option a line:

  learning_rate  loguniform  -8,-4       e^-8 to e^-4, even in the logarithm
  dropout        uniform     0.0,0.5
  hidden_size    quniform    64,256,64   multiples of 64
  encoder_layers choice      [1,2,4]

Trials are judged by `valid_metric` on the validation split; the test split is never used. The same
command goes on after an interruption."""


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of ``tune``."""
    purpose = "Search the options of one model on one data set by its validation metric."
    example = "--model=TIGER --dataset=Mini --params=x.txt"
    describe(parser, purpose, example, NOTES, runs_can_fail=True)
    add = parser.group("what to run")
    add("--model", "MODEL", "BBQRec, SASRec, ...; `models` lists all", required=True)
    add("--dataset", "NAME", "a prepared data set", required=True)
    add("--params", "FILE", "file of the options to search, see below", required=True)
    add("--algo", None, "every combination, random draws, or optuna's TPE; the last two need "
        "optuna", choices=(EXHAUSTIVE, RANDOM, BAYES), default=EXHAUSTIVE)  # fmt: skip
    add("--trials", "N", "number of trials (default: all combinations, or 20 for random and "
        "bayes)", type=int)  # fmt: skip
    add(
        "--asha",
        None,
        "stop trials that fall behind others at the same epoch (asynchronous "
        "successive halving); for random and bayes",
    )
    add("--fixed_tokenizer", None, "train phase one once, and search phase two on its semantic IDs")
    add = parser.group("output")
    add("--output", "DIR", "folder for best.yaml and trials.csv (default: tuning/MODEL-DATASET)",
        type=Path)  # fmt: skip
    add_run_store(parser)


def main(args: argparse.Namespace) -> int:
    """Search, and write the best options and all trials.

    Raises:
        UserError: a name, option or file is wrong, or no trial has a score.
    """
    if args.trials is not None and args.trials < 1:
        raise UserError(f"Option `--trials` is {args.trials}; expected at least 1.")
    if args.asha and args.algo == EXHAUSTIVE:
        raise UserError(
            f"Option `--asha` is for --algo={RANDOM} or {BAYES}; give one of them, or leave it out."
        )
    args.model = spec(args.model).name
    space = read_space(args.params)
    output = args.output or Path(f"tuning/{args.model}-{args.dataset}")
    refuse_file(output)
    common, own = model_options(args, [args.model], [args.dataset])
    options = {**common, **own.get(args.model, {})}
    base = Run(args.model, args.dataset, options, tuple(args.config_files))
    label = search_label(base, space)
    check_best(output, label)
    store = run_store(args)
    searched = base
    if args.fixed_tokenizer:
        path = fixed_tokenizer(store, base)
        searched = replace(base, overrides={**base.overrides, "tokenizer_path": str(path)})
    search = Search(store, searched, space, lambda trials: write_trials(trials, space, output))
    search.run(args.algo, args.trials, asha=args.asha)
    if search.best is None:
        raise UserError(
            f"No trial of the search has a score. The first one: {search.trials[0].error}"
        )
    best = BestTrial(search, search.best, output, own_tokenizer=args.fixed_tokenizer)
    is_best = best.write(args.algo, label)
    stopped = sum(trial.stopped for trial in search.trials)
    failed = sum(trial.score is None for trial in search.trials) - stopped
    if not is_best:
        print(f"\n{output / 'best.yaml'} has a better trial of this search, and is kept.")
    print(
        f"\nbest of {len(search.trials)} trials{f' ({failed} failed)' if failed else ''}"
        f"{f' ({stopped} stopped early)' if stopped else ''}: "
        f"{listed(search.best.values)}\nvalidation {search.metric} {search.best.score:.6f} "
        f"(trial {search.best.number})\nWritten to {output}: {'best.yaml, ' * is_best}trials.csv\n"
        + f"Test it: {best.command()}\n{best.note}".rstrip()
    )
    return FAILED if failed else 0
