"""The files of a search: best.yaml, which repeats its best trial, and trials.csv."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from recbole_bbqrec.atomic import write_text
from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.config.values import parse_value
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.experiment.comparison.tables import csv_text
from recbole_bbqrec.experiment.store.run_key import NOT_IN_KEY
from recbole_bbqrec.experiment.store.store import Run
from recbole_bbqrec.experiment.tune.search_space import Parameter
from recbole_bbqrec.experiment.tune.tune import Search, Trial

#: Options of the best trial that do not belong in a configuration to be used elsewhere.
_NOT_IN_BEST = {"seed", *NOT_IN_KEY}
#: Options that a search lowers on the command line, to try more in less time.
_BUDGET = ("epochs", "tokenizer_epochs")
_SCORE = re.compile(r"by validation \S+, (-?\d+\.\d+), seed ")  # in best.yaml


class BestTrial:
    """The best trial of a search, as a file of options and a command that tests it.

    Args:
        search: the finished search.
        trial: its best trial.
        output: folder of best.yaml.
        own_tokenizer: whether the search trained the semantic IDs of all trials itself.
    """

    def __init__(self, search: Search, trial: Trial, output: Path, own_tokenizer: bool) -> None:
        assert trial.outcome is not None
        self.search, self.trial, self.path = search, trial, output / "best.yaml"
        skipped = {"model", "dataset"} | ({"tokenizer_path"} if own_tokenizer else set())
        config = trial.outcome.planned.config
        options = {key: value for key, value in config.explicit.items() if key not in skipped}
        given = search.base.overrides
        self.budget = {k: given[k] for k in _BUDGET if k in given and k not in trial.values}
        for key in self.budget:
            del options[key]
            if key in config.file_config_dict:
                options[key] = config.file_config_dict[key]
        self._in_file = {k: v for k, v in options.items() if k not in _NOT_IN_BEST}
        self._beside = {k: v for k, v in options.items() if k in _NOT_IN_BEST}

    @property
    def note(self) -> str:
        """Say what the trials had and best.yaml has not; empty if there is nothing."""
        if not self.budget:
            return ""
        words = " ".join(f"--{key}={value_text(value)}" for key, value in self.budget.items())
        return (
            f"Left out: {words} of the search. A run from best.yaml trains in full; add {words} to "
            "repeat the trial."
        )

    def command(self) -> str:
        """Return the command that tests the trial: its file, and other options left out of it."""
        path, beside = str(self.path), self._beside
        if re.search(r"[\s,]", path):  # `--config_files` divides its files there
            path, beside = "", {**self._in_file, **beside}
        options = {"model": self.search.base.model, "dataset": self.search.base.dataset}
        options.update({"config_files": path} if path else {}, **beside)
        words = [f"--{key}={value_text(value)}" for key, value in options.items()]
        return " ".join(["python -m recbole_bbqrec run", *map(shlex.quote, words)])

    def write(self, algorithm: str, label: str) -> bool:
        """Write best.yaml, unless it holds a better trial of the same search; return if written.

        It has all options given and found, but how long the trials trained.

        Args:
            algorithm: how the trials were chosen.
            label: the line of :func:`search_label`.
        """
        search, score = self.search, self.trial.score or 0.0
        former = _SCORE.search(self.path.read_text("utf-8")) if self.path.is_file() else None
        known = round(score, 6) if former is None else float(former[1])
        if known != round(score, 6) and (known > score) == search.bigger_is_better:
            return False
        write_text(
            self.path,
            f"# {search.base.model} on {search.base.dataset}: best of {len(search.trials)} trials "
            f"({algorithm}) by validation {search.metric}, {score:.6f}, seed {search.seed}.\n"
            f"{label}\n# {self.command()}\n{f'# {self.note}' if self.note else '#'}\n"
            f"{yaml.safe_dump(self._in_file, sort_keys=True)}",
        )
        return True


def search_label(base: Run, space: Sequence[Parameter]) -> str:
    """Return the line of best.yaml that says which search it belongs to.

    Searches with other options, such as another seed, are others.

    Raises:
        UserError: an option is invalid.
    """
    config = BBQRecConfig(base.model, base.dataset, base.config_files, base.overrides)
    given = {k: v for k, v in sorted(config.explicit.items()) if k not in NOT_IN_KEY}
    others = {k: v for k, v in given.items() if k not in ("model", "dataset")}
    searched = "; ".join(map(str, space))
    ends = f", with {', '.join(f'{k} {v}' for k, v in others.items())}" if others else ""
    return " ".join(f"# Search: {base.model} on {base.dataset}, {searched}{ends}".split())


def check_best(output: Path, label: str) -> None:
    """Raise a UserError if the best.yaml in ``output`` is not of the search ``label``."""
    path = output / "best.yaml"
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    if label not in lines:
        other = next((line[2:] for line in lines if line.startswith("# Search: ")), "unknown")
        raise UserError(
            f"The file {path} is of another search ({other}). Give another folder with --output, "
            "or move the file away."
        )


def value_text(value: Any) -> str:
    """Return a value in the form that ``run`` reads back from the command line."""
    if isinstance(value, str) and parse_value(value) == value:
        return value
    return repr(value).replace("inf", "1e999") if isinstance(value, float) else repr(value)


def write_trials(trials: Sequence[Trial], space: Sequence[Parameter], output: Path) -> None:
    """Write trials.csv, a row a trial in the order of the search."""
    results = [(trial.outcome.result if trial.outcome else None) or {} for trial in trials]
    valid = [result.get("best_valid_result", {}) for result in results]
    metrics = list(dict.fromkeys(name for values in valid for name in values))
    rows = [
        {
            "trial": trial.number,
            **{parameter.name: trial.values[parameter.name] for parameter in space},
            "score": trial.score,
            **{f"valid_{name}": values.get(name) for name in metrics},
            "train_seconds": result.get("seconds", {}).get("train"),
            "error": trial.error,
            "run": trial.outcome.directory if trial.outcome else None,
        }
        for trial, result, values in zip(trials, results, valid)
    ]
    write_text(output / "trials.csv", csv_text(rows))
