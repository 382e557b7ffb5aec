"""Search for a model's options by its validation metric; the test split is never looked at.

Every trial is a run of the store. All three searches propose the same trials for the same seed
and results, so that a search given again finds its finished trials there and goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable

import numpy as np

from recbole_bbqrec.config.config import BBQRecConfig, check_options_read
from recbole_bbqrec.config.options import (
    MODEL_OPTIONS,
    PHASE_TWO_ONLY,
    RECBOLE_OPTIONS,
    RUN_OPTIONS,
    check_values,
)
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.experiment.store.progress import Progress
from recbole_bbqrec.experiment.store.store import Outcome, Run, RunStore
from recbole_bbqrec.experiment.tune.search_space import (
    Parameter,
    drawn_values,
    grid,
    hyperopt_space,
)
from recbole_bbqrec.model.registry import get_model, is_ours

EXHAUSTIVE, RANDOM, BAYES = "exhaustive", "random", "bayes"

#: Options that change what is measured: scores across their values are no comparison.
_PROTOCOL = {
    "model", "dataset", "data_path", "seed", "eval_args", "metrics", "topk", "valid_metric",
    "mask_history", "user_inter_num_interval", "item_inter_num_interval", "load_col",
}  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """One point of the search.

    Attributes:
        number: from 1 in the order of the search.
        values: the options tried.
        outcome: its run, or None where the options were refused together.
        error: why there is no score, or None.
    """

    number: int
    values: dict[str, Any]
    outcome: Outcome | None
    error: str | None

    @property
    def score(self) -> float | None:
        """The best validation score of the run; see ``valid_metric``."""
        if self.outcome is None or self.outcome.result is None:
            return None
        score = self.outcome.result["best_valid_score"]
        return None if score is None else float(score)  # None: a run that does not validate


class Search:
    """Tries options of one model on one data set.

    Args:
        store: where the trials' runs are kept.
        base: the run whose options are searched.
        space: the parameters and their values.
        on_trial: called with all trials so far after each.

    Raises:
        UserError: a parameter is unknown, not to be searched, or has a value out of range.
    """

    def __init__(
        self,
        store: RunStore,
        base: Run,
        space: Sequence[Parameter],
        on_trial: Callable[[list[Trial]], None] = lambda trials: None,
    ) -> None:
        self.store, self.space, self.on_trial = store, space, on_trial
        self.base = replace(base, test=False)
        self.trials: list[Trial] = []
        config = self.store.plan(self.base).config
        _check(self.base, config, space)
        self.bigger_is_better = bool(config["valid_metric_bigger"])
        self.metric = str(config["valid_metric"]).lower()
        self.seed = int(config["seed"])

    def run(self, algorithm: str, trials: int | None = None) -> list[Trial]:
        """Search and return all trials.

        Args:
            algorithm: ``exhaustive`` (every combination in order), ``random``, or ``bayes``
                (hyperopt's tree of Parzen estimators).
            trials: how many; None is all of them for ``exhaustive`` and 20 otherwise.

        Raises:
            UserError: hyperopt is missing, or the space is endless for ``exhaustive``.
        """
        if algorithm == EXHAUSTIVE:
            points = grid(self.space)[:trials]
            self._try_all(points)
        else:
            self._hyperopt(algorithm, trials or 20)
        return self.trials

    @property
    def best(self) -> Trial | None:
        """The trial with the best validation score, the earliest of equals; None without any."""
        scored = [trial for trial in self.trials if trial.score is not None]
        sign = 1 if self.bigger_is_better else -1
        return max(scored, key=lambda trial: sign * (trial.score or 0.0), default=None)

    def _try_all(self, points: Iterable[dict[str, Any]]) -> None:
        points = list(points)
        progress = Progress(self.store.say, len(points))
        for values in points:
            self._try(values, progress)

    def _hyperopt(self, algorithm: str, trials: int) -> None:
        try:
            import hyperopt
        except ImportError as error:
            raise UserError(
                f"Option `--algo` is {algorithm}, which needs hyperopt; install it (pip install "
                f"hyperopt), or use --algo {EXHAUSTIVE}."
            ) from error
        progress = Progress(self.store.say, trials)

        def objective(drawn: dict[str, Any]) -> dict[str, Any]:
            trial = self._try(drawn_values(self.space, drawn), progress)
            if trial.score is None:
                return {"status": hyperopt.STATUS_FAIL}
            loss = -trial.score if self.bigger_is_better else trial.score
            return {"status": hyperopt.STATUS_OK, "loss": loss}

        suggest = {RANDOM: hyperopt.rand.suggest, BAYES: hyperopt.tpe.suggest}[algorithm]
        hyperopt.fmin(
            objective,
            hyperopt_space(self.space),
            algo=suggest,
            max_evals=trials,
            rstate=np.random.default_rng(self.seed),
            show_progressbar=False,
            verbose=False,
            return_argmin=False,
        )

    def _try(self, values: dict[str, Any], progress: Progress) -> Trial:
        number = len(self.trials) + 1
        self.store.say(f"trial {number}: {listed(values)}")
        run = replace(self.base, overrides={**self.base.overrides, **values})
        outcome, error = None, None
        try:
            planned = self.store.plan(run)
        except UserError as refused:  # values that are right alone and wrong together
            error = str(refused)
            progress.skip()
        else:
            if self.store.find(planned) is not None:
                progress.skip()
            (outcome,) = self.store.ensure([planned], progress)
            error = outcome.error
        trial = Trial(number, values, outcome, error)
        self.trials.append(trial)
        best = self.best
        score = f"{self.metric} {trial.score:.6f}" if trial.score is not None else f"none: {error}"
        so_far = f", best so far {best.score:.6f} (trial {best.number})" if best else ""
        self.store.say(f"  validation {score}{so_far}")
        self.on_trial(self.trials)
        return trial


def fixed_tokenizer(store: RunStore, base: Run) -> Path:
    """Train phase one of ``base`` once and return its semantic IDs, for ``tokenizer_path``.

    A run of the store with one epoch of phase two; it is found again by later searches.

    Raises:
        UserError: the model has no phase one, a tokenizer is given already, or the run failed.
    """
    if not getattr(get_model(base.model), "two_phase", False):
        raise UserError(
            f"Option `--fixed-tokenizer`: {base.model} has no phase one; leave the option out."
        )
    run = replace(base, overrides={**base.overrides, "epochs": 1}, test=False)
    planned = store.plan(run)
    if planned.config["tokenizer_path"] is not None:
        raise UserError(
            "Option `--fixed-tokenizer`: `tokenizer_path` names semantic IDs already; leave one "
            "of the two out."
        )
    store.say("phase one, once for all trials:")
    (outcome,) = store.ensure([planned])
    if not outcome.finished:
        raise UserError(f"Phase one failed: {outcome.error} See {outcome.log}.")
    return outcome.file("semantic_ids")


def listed(values: dict[str, Any]) -> str:
    """Options as one line of text."""
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _check(base: Run, config: BBQRecConfig, space: Sequence[Parameter]) -> None:
    """Every parameter by itself; whether values go together only the trial can tell."""
    fixed = config["tokenizer_path"] is not None
    options = {**RUN_OPTIONS, **RECBOLE_OPTIONS, **(MODEL_OPTIONS if is_ours(base.model) else {})}
    for parameter in space:
        name = parameter.name
        if name in _PROTOCOL:
            raise UserError(
                f"Parameter `{name}` decides what is measured and cannot be searched; remove it "
                "from the parameter file, or give it with --set."
            )
        for value in parameter.extremes:
            check_options_read(base.model, base.dataset, {name: value})
        if fixed and name not in PHASE_TWO_ONLY:
            raise UserError(
                f"Parameter `{name}` has a part in phase one, whose semantic IDs are fixed here; "
                "remove it, or search without a fixed tokenizer."
            )
        for value in parameter.extremes:
            check_values({name: value}, options)
