"""Search for a model's options by its validation metric, without looking at the test split.

Every trial is a run of the store. All three algorithms propose the same trials for the same seed
and results, so an interrupted search finds its finished trials in the store and continues. Where
several trials run at once, the order of their ends decides what `bayes` proposes next.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable

from recbole_bbqrec.config.config import BBQRecConfig, check_options_read
from recbole_bbqrec.config.options import (
    MODEL_OPTIONS,
    PHASE_TWO_ONLY,
    RECBOLE_OPTIONS,
    RUN_OPTIONS,
    check_values,
)
from recbole_bbqrec.data.protocol.settings import SplitSettings
from recbole_bbqrec.errors import UserError, pip_install
from recbole_bbqrec.experiment.store.progress import Progress
from recbole_bbqrec.experiment.store.store import Outcome, Planned, Run, RunStore
from recbole_bbqrec.experiment.tune.early_stop import EarlyStop
from recbole_bbqrec.experiment.tune.search_space import Parameter, grid
from recbole_bbqrec.model.registry import is_ours, spec
from recbole_bbqrec.settings import names_of

EXHAUSTIVE, RANDOM, BAYES = "exhaustive", "random", "bayes"
Point = tuple  # values of the options by name, and optuna's trial or None

#: Options that change what is measured, so that scores cannot be compared across their values.
_PROTOCOL = {
    "model", "dataset", "data_path", "seed", "eval_args", "metrics", "topk", "valid_metric",
    "mask_history", "user_inter_num_interval", "item_inter_num_interval", "load_col",
    *names_of([SplitSettings]),
}  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """One point of the search.

    Attributes:
        number: from 1, in the order of the search.
        values: the options tried.
        outcome: its run, or None if the options were refused.
        error: why there is no score, or None.
        stopped: whether it was stopped because others were ahead.
    """

    number: int
    values: dict[str, Any]
    outcome: Outcome | None
    error: str | None
    stopped: bool = False

    @property
    def score(self) -> float | None:
        """The best validation score of the run (option ``valid_metric``), or None."""
        if self.outcome is None or self.outcome.result is None:
            return None
        score = self.outcome.result["best_valid_score"]
        return None if score is None else float(score)  # None: the run does not validate


class Search:
    """A search of one model's options on one data set.

    Args:
        store: keeps the runs of the trials.
        base: the run whose options are searched.
        space: the parameters and their values.
        on_trial: called after each trial with all trials so far.

    Raises:
        UserError: a parameter is unknown, cannot be searched, or has a value out of range.
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

    def run(self, algorithm: str, trials: int | None = None, *, asha: bool = False) -> list[Trial]:
        """Search and return all trials.

        Args:
            algorithm: ``exhaustive`` (every combination in order), ``random``, or ``bayes``
                (optuna's tree-structured Parzen estimator).
            trials: their number; None is all of them for ``exhaustive`` and 20 otherwise.
            asha: stop trials whose validation scores fall behind those of others at the same epoch
                (optuna's asynchronous successive halving).

        Raises:
            UserError: optuna is missing, or the space is infinite for ``exhaustive``.
        """
        if algorithm == EXHAUSTIVE:
            points = grid(self.space)[:trials]
            self._try_all(((values, None) for values in points), len(points))
        else:
            self._sample(algorithm, trials or 20, asha)
        return self.trials

    @property
    def best(self) -> Trial | None:
        """The trial with the best validation score, the earliest of equals; None without any."""
        scored = [trial for trial in self.trials if trial.score is not None]
        sign = 1 if self.bigger_is_better else -1
        return max(scored, key=lambda trial: sign * (trial.score or 0.0), default=None)

    def _sample(self, algorithm: str, trials: int, asha: bool) -> None:
        """Ask optuna for each trial and tell it the score; its study lives in memory only."""
        try:
            import optuna
        except ImportError as error:
            raise UserError(
                f"Option `--algo` is {algorithm}, which needs optuna; install it "
                f"({pip_install('tune')}) or use --algo {EXHAUSTIVE}."
            ) from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        samplers = {RANDOM: optuna.samplers.RandomSampler, BAYES: optuna.samplers.TPESampler}
        halving = optuna.pruners.SuccessiveHalvingPruner(min_resource=1)
        study = optuna.create_study(
            sampler=samplers[algorithm](seed=self.seed),
            pruner=halving if asha else optuna.pruners.NopPruner(),
            direction="maximize" if self.bigger_is_better else "minimize",
        )
        distributions = {parameter.name: parameter.distribution() for parameter in self.space}

        def points() -> Iterator[Point]:
            for _ in range(trials):
                asked = study.ask(distributions)
                yield {p.name: p.value(asked.params[p.name]) for p in self.space}, asked

        def tell(trial: Trial, asked: Any) -> None:
            states = optuna.trial.TrialState
            unscored = states.PRUNED if trial.stopped else states.FAIL
            study.tell(asked, trial.score, state=unscored if trial.score is None else None)

        self._try_all(points(), trials, tell, EarlyStop(self.metric) if asha else None)

    def _try_all(
        self,
        points: Iterable[Point],
        total: int,
        tell: Callable[[Trial, Any], None] = lambda trial, asked: None,
        early: EarlyStop | None = None,
    ) -> None:
        """Make the trials; ``tell`` is called with each at its end and the point's second part."""
        progress = Progress(self.store.echo, total, self.store.launcher.slots)
        open_trials: dict[Path, list[tuple[int, Point]]] = {}  # equal trials share a run

        def ended(number: int, point: Point, outcome: Outcome | None, error: str | None) -> None:
            stopped = early is not None and outcome is not None and early.stopped(outcome.directory)
            if stopped:
                error = "stopped, other trials were ahead at the same epoch"
            trial = Trial(number, point[0], outcome, error, stopped)
            self.trials = sorted([*self.trials, trial], key=lambda each: each.number)
            tell(trial, point[1])
            self._report(trial)

        def runs() -> Iterator[Planned]:
            for number, point in enumerate(points, start=1):
                self.store.echo(f"trial {number}: {listed(point[0])}")
                run = replace(self.base, overrides={**self.base.overrides, **point[0]})
                try:
                    planned = self.store.plan(run)
                except UserError as refused:  # valid one by one, but not together
                    progress.skip()
                    ended(number, point, None, str(refused))
                    continue
                known = self.store.find(planned)
                if known is not None:
                    progress.skip()
                    progress.add_known(known.model, known.dataset, known.result)
                    ended(number, point, known, None)
                    continue
                same = open_trials.setdefault(planned.directory, [])
                same.append((number, point))
                if len(same) > 1:
                    progress.skip()
                    continue
                if early is not None:
                    early.watch(planned.directory, point[1])
                yield planned

        stop = early or (lambda directory: False)
        for outcome in self.store.as_completed(runs(), progress, stop):
            for number, point in open_trials.pop(outcome.planned.directory):
                ended(number, point, outcome, outcome.error)

    def _report(self, trial: Trial) -> None:
        best = self.best
        known = trial.score is not None
        score = f"{self.metric} {trial.score:.6f}" if known else f"none: {trial.error}"
        so_far = f", best so far {best.score:.6f} (trial {best.number})" if best else ""
        which = f"trial {trial.number}: " if self.store.launcher.slots > 1 else ""
        self.store.echo(f"  {which}validation {score}{so_far}")
        self.on_trial(self.trials)


def fixed_tokenizer(store: RunStore, base: Run) -> Path:
    """Train phase one of ``base`` once and return its semantic IDs, for ``tokenizer_path``.

    It is a run of the store with one epoch of phase two, which later searches find there.

    Raises:
        UserError: the model has no phase one, a tokenizer is already given, or the run failed.
    """
    if not spec(base.model).two_phase:
        raise UserError(
            f"Option `--fixed_tokenizer`: {base.model} has no phase one; remove the option."
        )
    run = replace(base, overrides={**base.overrides, "epochs": 1}, test=False)
    planned = store.plan(run)
    if planned.config["tokenizer_path"] is not None:
        raise UserError(
            "Option `--fixed_tokenizer`: `tokenizer_path` already names semantic IDs; remove "
            "one of the two."
        )
    store.echo("phase one, once for all trials:")
    (outcome,) = store.ensure([planned])
    if not outcome.finished:
        raise UserError(f"Phase one failed: {outcome.error} See {outcome.log}.")
    return outcome.file("semantic_ids")


def listed(values: dict[str, Any]) -> str:
    """Write options as one line of text."""
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _check(base: Run, config: BBQRecConfig, space: Sequence[Parameter]) -> None:
    """Check every parameter by itself; only a trial shows if values go together."""
    fixed = config["tokenizer_path"] is not None
    options = {**RUN_OPTIONS, **RECBOLE_OPTIONS, **(MODEL_OPTIONS if is_ours(base.model) else {})}
    for parameter in space:
        name = parameter.name
        if name in _PROTOCOL:
            raise UserError(
                f"Parameter `{name}` decides what is measured and cannot be searched; remove it "
                "from the parameter file, or give it as an option."
            )
        for value in parameter.extremes:
            check_options_read(base.model, base.dataset, {name: value})
        if fixed and name not in PHASE_TWO_ONLY:
            raise UserError(
                f"Parameter `{name}` is read by phase one, whose semantic IDs are fixed here; "
                "remove it, or search without a fixed tokenizer."
            )
        for value in parameter.extremes:
            check_values({name: value}, options)
