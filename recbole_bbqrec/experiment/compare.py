"""From finished runs to a comparison: means over seeds, who is best, and whether it is chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.experiment.significance import PairedTest, compare_models
from recbole_bbqrec.experiment.store import Outcome, Planned


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
    ``test``: None where a run has no per-user metrics.
    """

    baseline: str
    improvement: float | None
    test: PairedTest | None


@dataclass(frozen=True)
class Comparison:
    """Models on data sets, metric by metric.

    ``cells``: by (data set, model, metric). ``failures``: log files of failed runs by (data set,
    model). ``verdicts``: by (data set, metric), where the target and a baseline are complete.
    ``splits``: the split hash of each data set.
    """

    models: tuple[str, ...]
    datasets: tuple[str, ...]
    metrics: tuple[str, ...]
    seeds: tuple[int, ...]
    target: str
    cells: dict[tuple[str, str, str], Cell]
    failures: dict[tuple[str, str], tuple[Path, ...]]
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

    return [
        ("the split of the data", one.split_hash, other.split_hash),
        ("`eval_args: mode`", mode(one), mode(other)),
        ("`mask_history`", masked(one), masked(other)),
    ]


def summarise(outcomes: Sequence[Outcome], target: str) -> Comparison:
    """Aggregate runs over their seeds and test ``target`` against the best other model.

    Raises:
        UserError: the runs have no metric in common, or were tested on different users.
    """
    groups: dict[tuple[str, str], list[Outcome]] = {}
    failures: dict[tuple[str, str], tuple[Path, ...]] = {}
    for outcome in outcomes:
        where = outcome.run.dataset, outcome.run.model
        groups.setdefault(where, []).append(outcome)
        if not outcome.finished:
            failures[where] = (*failures.get(where, ()), outcome.log)
    datasets, models = _distinct(d for d, _ in groups), _distinct(m for _, m in groups)
    metrics = _common_metrics(outcomes)
    cells = {
        (dataset, model, metric): _cell(runs, metric)
        for (dataset, model), runs in groups.items()
        for metric in metrics
    }
    verdicts = {}
    for dataset in datasets:
        for metric in metrics:
            ours = {model: cells[dataset, model, metric] for model in models}
            baseline = _best_baseline(ours, target)
            if baseline is not None:
                runs = groups[dataset, target], groups[dataset, baseline]
                verdicts[dataset, metric] = _verdict(ours, target, baseline, *runs, metric)
    return Comparison(
        models, datasets, metrics,
        _distinct(outcome.planned.config["seed"] for outcome in outcomes), target, cells, failures,
        verdicts,
        {outcome.run.dataset: outcome.planned.split_hash for outcome in outcomes},
    )  # fmt: skip


def _cell(runs: Sequence[Outcome], metric: str) -> Cell:
    values = tuple(run.result["test_result"][metric] for run in runs if run.result is not None)
    return Cell(values, tuple(run.log for run in runs if run.result is None))


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
    ours: Sequence[Outcome],
    theirs: Sequence[Outcome],
    metric: str,
) -> Verdict:
    mine, other = cells[target].mean, cells[baseline].mean
    improvement = (mine - other) / other if mine is not None and other else None
    known = all("per_user" in (run.result or {}).get("files", {}) for run in [*ours, *theirs])
    test = None
    if known and all(metric in run.per_user.metrics for run in [*ours, *theirs]):
        test = compare_models([r.per_user for r in ours], [r.per_user for r in theirs], metric)
    return Verdict(baseline, improvement, test)


def _common_metrics(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    finished = [outcome.result["test_result"] for outcome in outcomes if outcome.result]
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
