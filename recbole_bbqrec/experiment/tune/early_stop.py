"""Early end of trials that fall behind others, by the validations that their runs write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.run_files.epochs import read_epochs
from recbole_bbqrec.run_files.names import SAVED, RunFiles


class EarlyStop:
    """Reports the validation scores of running trials to optuna, whose pruner decides.

    Args:
        metric: the score, a name in the validation metrics such as ``ndcg@10``.
    """

    def __init__(self, metric: str) -> None:
        self.metric = metric
        self._trials: dict[Path, Any] = {}  # optuna's trials by directory of their runs
        self._reported: dict[Path, int] = {}  # validations of each
        self._stopped: set[Path] = set()

    def watch(self, directory: Path, trial: Any) -> None:
        """Report the run in ``directory`` to optuna's ``trial`` from now on."""
        self._trials[directory], self._reported[directory] = trial, 0

    def stopped(self, directory: Path) -> bool:
        """Return True if the run in ``directory`` was stopped."""
        return directory in self._stopped

    def __call__(self, directory: Path) -> bool:
        """Report new validations of the run; return True if it shall end."""
        trial = self._trials[directory]
        scores = validation_scores(directory, self.metric)
        for step, score in list(enumerate(scores, start=1))[self._reported[directory] :]:
            trial.report(score, step)
            if trial.should_prune():
                self._stopped.add(directory)
                return True
        self._reported[directory] = len(scores)
        return False


def validation_scores(directory: Path, metric: str) -> list[float]:
    """Return the validation scores so far of the run in ``directory``, phase one left out."""
    for files in RunFiles.all_in(directory / SAVED):
        try:
            lines = read_epochs(files.epochs)
        except UserError:
            continue  # of another run, or being replaced on a shared folder
        valid = [line.get("valid") or {} for line in lines if line["phase"] != "tokenize"]
        return [float(each[metric]) for each in valid if each.get(metric) is not None]
    return []
