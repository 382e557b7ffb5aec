"""Comparison of finished runs: means over seeds, best models, and paired tests over users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Protocol

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.experiment.comparison.significance import PairedTest, compare_models, holm
from recbole_bbqrec.experiment.store.store import Planned
from recbole_bbqrec.run_files.per_user import PerUser


class Tested(Protocol):
    """A run to compare: an ``Outcome`` of the store, or an ``Evaluation``.

    ``model`` is its label. ``metrics`` is None if the run failed, and ``log`` then has the reason.
    ``users`` is None if there are no per-user metrics. ``by_target`` has metrics by kinds of
    targets, of :func:`recbole_bbqrec.metrics.groups.by_group`; empty in older runs.
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
    def protocol(self) -> str: ...
    @property
    def by_target(self) -> Mapping[str, Any]: ...
    @property
    def log(self) -> Path: ...


@dataclass(frozen=True)
class Cell:
    """One metric of one model on one data set.

    Attributes:
        values: those of the finished seeds, in order.
        logs: log files of the failed seeds.
    """

    values: tuple[float, ...]
    logs: tuple[Path, ...] = ()

    @property
    def complete(self) -> bool:
        """True if every seed finished. Only complete cells are ranked and tested."""
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
    """The target against one other model, on one metric of one data set.

    Attributes:
        baseline: the other model.
        improvement: of the mean, as a share of the baseline's (0.1 = 10 %); None if that is 0.
        test: the paired tests.
        p_t, p_wilcoxon: the tests' p-values, corrected for the tests of the target against every
            other model on this metric and data set (Holm).
    """

    baseline: str
    improvement: float | None
    test: PairedTest
    p_t: float
    p_wilcoxon: float


@dataclass(frozen=True)
class Comparison:
    """Models on data sets, metric by metric.

    Attributes:
        cells: by (data set, model, metric).
        failures: log files of failed runs, by (data set, model).
        ranked: the (data set, metric) pairs for which every finished run has per-user values. Of
            other metrics, such as GiniIndex, more is not always better.
        rivals: the target's verdicts against all complete other models, the best of them first,
            by the pairs of ``ranked`` where the target and another model are complete.
        splits: the split hash of each data set, and the protocol if the runs know it.
    """

    models: tuple[str, ...]
    datasets: tuple[str, ...]
    metrics: tuple[str, ...]
    seeds: tuple[int, ...]
    target: str
    cells: dict[tuple[str, str, str], Cell]
    failures: dict[tuple[str, str], tuple[Path, ...]]
    ranked: frozenset[tuple[str, str]]
    rivals: dict[tuple[str, str], tuple[Verdict, ...]]
    splits: dict[str, str]

    @property
    def verdicts(self) -> dict[tuple[str, str], Verdict]:
        """The target against the best other model, by the pairs of ``rivals``."""
        return {pair: verdicts[0] for pair, verdicts in self.rivals.items()}

    @property
    def failed(self) -> bool:
        return bool(self.failures)

    def logs(self, dataset: str, model: str) -> tuple[Path, ...]:
        """Return the log files of the failed runs of one model on one data set."""
        return self.failures.get((dataset, model), ())

    def row(self, dataset: str, metric: str) -> list[Cell]:
        """Return the cells of all models."""
        return [self.cells[dataset, model, metric] for model in self.models]


def check_comparable(planned: Sequence[Planned]) -> None:
    """Raise a UserError if two runs on one data set would not be evaluated alike.

    They must hold out the same events, rank the same items, and treat the history alike.
    """
    first: dict[str, Planned] = {}
    for run in planned:
        other = first.setdefault(run.run.dataset, run)
        expected = _protocol(other)
        for what, value in _protocol(run).items():
            if value != expected[what]:
                raise UserError(
                    f"{run.name} and {other.name} cannot be compared: {what} is {value} for the "
                    f"first and {expected[what]} for the second. Give both the same data and "
                    "options."
                )


def _protocol(planned: Planned) -> dict[str, Any]:
    """Return what must be the same for all runs on a data set, by its name in a message."""
    config = planned.config
    masked = config["mask_history"]
    return {
        "the split of the data": planned.split_hash,
        "`eval_args: mode`": config["eval_args"]["mode"],
        "`mask_history`": masked,
        # a longer history than this is only masked in part
        "`MAX_ITEM_LIST_LENGTH`, where the history is masked,": (
            config["MAX_ITEM_LIST_LENGTH"] if masked else None
        ),
    }


def summarise(runs: Sequence[Tested], target: str) -> Comparison:
    """Aggregate runs over their seeds and test ``target`` against every other model.

    Raises:
        UserError: the runs have no metric in common, or were tested on different users.
    """
    groups: dict[tuple[str, str], list[Tested]] = {}
    failures: dict[tuple[str, str], tuple[Path, ...]] = {}
    for run in runs:
        key = run.dataset, run.model
        groups.setdefault(key, []).append(run)
        if run.metrics is None:
            failures[key] = (*failures.get(key, ()), run.log)
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
    rivals = {}
    for dataset, metric in ((d, m) for d in datasets for m in metrics if (d, m) in ranked):
        column = {model: cells[dataset, model, metric] for model in models}
        users = {model: _users(groups[dataset, model]) for model in models}
        if verdicts := _verdicts(column, users, target, metric):
            rivals[dataset, metric] = verdicts
    return Comparison(
        models, datasets, metrics,
        _distinct(run.seed for run in runs), target, cells, failures, ranked, rivals,
        {run.dataset: ", ".join(filter(None, [run.split_hash, run.protocol])) for run in runs},
    )  # fmt: skip


def _cell(runs: Sequence[Tested], metric: str) -> Cell:
    values = tuple(run.metrics[metric] for run in runs if run.metrics is not None)
    return Cell(values, tuple(run.log for run in runs if run.metrics is None))


def _verdicts(
    cells: Mapping[str, Cell], users: Mapping[str, list[PerUser]], target: str, metric: str
) -> tuple[Verdict, ...]:
    """Test the target against the complete other models, the best first; none if it is not."""
    others = {m: c.mean or 0.0 for m, c in cells.items() if m != target and c.complete}
    if not cells[target].complete:
        return ()
    best_first = sorted(others, key=lambda model: -others[model])
    tests = [compare_models(users[target], users[other], metric) for other in best_first]
    p_t = holm([test.p_t for test in tests])
    p_wilcoxon = holm([test.p_wilcoxon for test in tests])
    improvements = [_improvement(cells[target].mean, cells[other].mean) for other in best_first]
    return tuple(map(Verdict, best_first, improvements, tests, p_t, p_wilcoxon))


def _improvement(target: float | None, baseline: float | None) -> float | None:
    return (target - baseline) / baseline if target is not None and baseline else None


def _have_users(runs: Sequence[Tested], metric: str) -> bool:
    """Return True if every finished run has per-user values of the metric."""
    finished = [run for run in runs if run.metrics is not None]
    return all(run.users is not None and metric in run.users.metrics for run in finished)


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
