"""From finished runs to a comparison: means over seeds, who is best, and whether it is chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Protocol

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.experiment.comparison.significance import PairedTest, compare_models
from recbole_bbqrec.experiment.store.store import Planned
from recbole_bbqrec.run_files.per_user import PerUser


class Tested(Protocol):
    """What a comparison reads of one run: a stored one's ``Outcome``, or an ``Evaluation``.

    ``model`` is the name that it goes by; ``metrics`` is None where the run failed, and ``log``
    then says why; ``users`` is None where there are no per-user metrics.
    """

    @property
    def model(self) -> str: ...
    @property
    def dataset(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def split_hash(self) -> str: ...
    @property
    def metrics(self) -> Mapping[str, float] | None: ...
    @property
    def users(self) -> PerUser | None: ...
    @property
    def log(self) -> Path: ...


@dataclass(frozen=True)
class Cell:
    """One metric of one model on one data set.

    Attributes:
        values: of the finished seeds, in their order.
        logs: log files of the seeds that failed.
    """

    values: tuple[float, ...]
    logs: tuple[Path, ...] = ()

    @property
    def complete(self) -> bool:
        """All seeds finished: only such cells are ranked and tested."""
        return bool(self.values) and not self.logs

    @property
    def mean(self) -> float | None:
        return mean(self.values) if self.values else None

    @property
    def std(self) -> float | None:
        """Sample standard deviation (n - 1); None for fewer than two seeds."""
        return stdev(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True)
class Verdict:
    """The target against the best of the other models, on one metric of one data set.

    ``improvement``: of the mean, as a share of the baseline's (0.1 = 10 %); None where that is 0.
    """

    baseline: str
    improvement: float | None
    test: PairedTest


@dataclass(frozen=True)
class Comparison:
    """Models on data sets, metric by metric.

    ``cells``: by (data set, model, metric). ``failures``: log files of failed runs by (data set,
    model). ``ranked``: the (data set, metric) pairs of which every finished run has each user's
    value; of another metric, such as GiniIndex, more is not always better. ``verdicts``: by those
    of them where the target and a baseline are complete. ``splits``: the split hash of each data
    set.
    """

    models: tuple[str, ...]
    datasets: tuple[str, ...]
    metrics: tuple[str, ...]
    seeds: tuple[int, ...]
    target: str
    cells: dict[tuple[str, str, str], Cell]
    failures: dict[tuple[str, str], tuple[Path, ...]]
    ranked: frozenset[tuple[str, str]]
    verdicts: dict[tuple[str, str], Verdict]
    splits: dict[str, str]

    @property
    def failed(self) -> bool:
        return bool(self.failures)

    def logs(self, dataset: str, model: str) -> tuple[Path, ...]:
        """Log files of the failed runs of one model on one data set."""
        return self.failures.get((dataset, model), ())

    def row(self, dataset: str, metric: str) -> list[Cell]:
        """The cells of all models."""
        return [self.cells[dataset, model, metric] for model in self.models]


def check_comparable(planned: Sequence[Planned]) -> None:
    """Raise a UserError if two runs on one data set would not be tested alike.

    The same events must be held out, the same items ranked, and the history treated alike.
    """
    first: dict[str, Planned] = {}
    for one in planned:
        other = first.setdefault(one.run.dataset, one)
        for what, value, wanted in _protocol(one, other):
            if value != wanted:
                raise UserError(
                    f"{one.name} and {other.name} cannot be compared: {what} is {value} for the "
                    f"one and {wanted} for the other. Give both the same data and options."
                )


def _protocol(one: Planned, other: Planned) -> list[tuple[str, Any, Any]]:
    def mode(planned: Planned) -> Any:
        return planned.config["eval_args"]["mode"]

    def masked(planned: Planned) -> Any:
        return planned.config["mask_history"]

    def reach(planned: Planned) -> Any:  # a longer history than this is masked in part
        return planned.config["MAX_ITEM_LIST_LENGTH"] if masked(planned) else None

    return [
        ("the split of the data", one.split_hash, other.split_hash),
        ("`eval_args: mode`", mode(one), mode(other)),
        ("`mask_history`", masked(one), masked(other)),
        ("`MAX_ITEM_LIST_LENGTH`, where the history is masked,", reach(one), reach(other)),
    ]


def summarise(runs: Sequence[Tested], target: str) -> Comparison:
    """Aggregate runs over their seeds and test ``target`` against the best other model.

    Raises:
        UserError: the runs have no metric in common, or were tested on different users.
    """
    groups: dict[tuple[str, str], list[Tested]] = {}
    failures: dict[tuple[str, str], tuple[Path, ...]] = {}
    for run in runs:
        where = run.dataset, run.model
        groups.setdefault(where, []).append(run)
        if run.metrics is None:
            failures[where] = (*failures.get(where, ()), run.log)
    datasets, models = _distinct(d for d, _ in groups), _distinct(m for _, m in groups)
    metrics = _common_metrics(runs)
    cells = {
        (dataset, model, metric): _cell(group, metric)
        for (dataset, model), group in groups.items()
        for metric in metrics
    }
    ranked = frozenset(
        (dataset, metric)
        for dataset in datasets
        for metric in metrics
        if _have_users([run for run in runs if run.dataset == dataset], metric)
    )
    verdicts = {}
    for dataset, metric in ((d, m) for d in datasets for m in metrics if (d, m) in ranked):
        ours = {model: cells[dataset, model, metric] for model in models}
        baseline = _best_baseline(ours, target)
        if baseline is not None:
            pair = groups[dataset, target], groups[dataset, baseline]
            verdicts[dataset, metric] = _verdict(ours, target, baseline, *pair, metric)
    return Comparison(
        models, datasets, metrics,
        _distinct(run.seed for run in runs), target, cells, failures, ranked, verdicts,
        {run.dataset: run.split_hash for run in runs},
    )  # fmt: skip


def _cell(runs: Sequence[Tested], metric: str) -> Cell:
    values = tuple(run.metrics[metric] for run in runs if run.metrics is not None)
    return Cell(values, tuple(run.log for run in runs if run.metrics is None))


def _best_baseline(cells: dict[str, Cell], target: str) -> str | None:
    """The complete model with the best mean, the target apart; None if either is incomplete."""
    others = {m: c.mean for m, c in cells.items() if m != target and c.complete}
    if not others or not cells[target].complete:
        return None
    return max(others, key=lambda model: others[model] or 0.0)


def _verdict(
    cells: dict[str, Cell],
    target: str,
    baseline: str,
    ours: Sequence[Tested],
    theirs: Sequence[Tested],
    metric: str,
) -> Verdict:
    mine, other = cells[target].mean, cells[baseline].mean
    improvement = (mine - other) / other if mine is not None and other else None
    test = compare_models(_users(ours), _users(theirs), metric)
    return Verdict(baseline, improvement, test)


def _have_users(runs: Sequence[Tested], metric: str) -> bool:
    """Whether each run that finished has every user's value of the metric."""
    users = [run.users for run in runs if run.metrics is not None]
    return all(one is not None and metric in one.metrics for one in users)


def _users(runs: Sequence[Tested]) -> list[PerUser]:
    return [run.users for run in runs if run.users is not None]


def _common_metrics(runs: Sequence[Tested]) -> tuple[str, ...]:
    finished = [run.metrics for run in runs if run.metrics is not None]
    if not finished:
        return ()
    common = tuple(name for name in finished[0] if all(name in result for result in finished))
    if not common:
        raise UserError(
            "The runs have no metric in common; give all of them the same `metrics` and `topk`."
        )
    return common


def _distinct(values: Any) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(values))
