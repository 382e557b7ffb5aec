"""Runs of an experiment: planned, and made within a time budget."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Callable

from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.errors import UserError, did_you_mean
from recbole_bbqrec.experiment.common_options import seeds_of
from recbole_bbqrec.experiment.comparison.paired import check_comparable
from recbole_bbqrec.experiment.reproduce import paper
from recbole_bbqrec.experiment.reproduce.study import (
    NOT_RUN,
    Request,
    Result,
    Results,
    Setting,
)
from recbole_bbqrec.experiment.store.progress import Progress, duration
from recbole_bbqrec.experiment.store.store import Outcome, Planned, Run, RunStore
from recbole_bbqrec.prepare.on_demand import check_files


@dataclass(frozen=True)
class Place:
    """The planned runs of a setting on a data set, one per seed, or the reason for none."""

    dataset: str
    setting: Setting
    planned: tuple[Planned, ...] = ()
    reason: str = ""
    briefly: bool = False


@dataclass(frozen=True)
class Plan:
    """Places of an experiment in its tables; absent data sets -> how to make them."""

    request: Request
    places: tuple[Place, ...]
    absent: Mapping[str, str]

    @property
    def planned(self) -> list[Planned]:
        """Runs, each once: all settings with the first seed, then all with the next."""
        runs: dict[Path, Planned] = {}
        for turn in zip_longest(*(place.planned for place in self.places)):
            for run in filter(None, turn):
                runs.setdefault(run.directory, run)
        return list(runs.values())


def make_plan(store: RunStore, request: Request) -> Plan:
    """Resolve every run.

    Raises:
        UserError: neither the paper nor the data folder has a data set, an option or file is
            invalid, or the runs are not comparable.
    """
    absent = _absent(request)
    places = tuple(
        _place(store, request, dataset, setting)
        for dataset in request.datasets
        if dataset not in absent
        for setting in request.settings
    )
    plan = Plan(request, places, absent)
    check_comparable(plan.planned)
    return plan


def carry_out(store: RunStore, plan: Plan, minutes: float | None) -> Results:
    """Make the missing runs, as far as the budget in minutes allows.

    A run is started if its expected time still fits; the first, of unknown time, always is. A
    started run is never cut short.
    """
    runs = plan.planned
    outcomes = store.ensure(runs) if minutes is None else _within(store, runs, 60 * minutes)
    by_directory = {run.directory: outcome for run, outcome in zip(runs, outcomes)}
    by_place = {
        (place.dataset, place.setting.label): Result(
            tuple(by_directory[run.directory] for run in place.planned),
            place.reason,
            place.briefly,
        )
        for place in plan.places
    }
    return Results(plan.request, plan.absent, by_place)


def print_plan(store: RunStore, plan: Plan) -> None:
    """Print which runs are finished, which will be made, and which cannot be."""
    finished = {run.directory: store.find(run) is not None for run in plan.planned}
    missing = sum(not done for done in finished.values())
    if finished:
        count = f"{len(finished)} runs in {store.root}"
        print(f"{count}: {len(finished) - missing} there, {missing} to run")
    width = max((len(f"{p.dataset} {p.setting.label}") for p in plan.places), default=0)
    for place in plan.places:
        words = [
            f"seed {run.config['seed']} {'there' if finished[run.directory] else 'to run'}"
            for run in place.planned
        ]
        text = place.reason or ", ".join(words)
        print(f"  {f'{place.dataset} {place.setting.label}':<{width}}  {text}")
    for how in plan.absent.values():
        print(f"  {how}")


# helpers --------------------------------------------------------------------------------------


def _absent(request: Request) -> dict[str, str]:
    """Return the paper's data sets without files -> how to make them."""
    model = request.settings[0].model if request.settings else "BBQRec"
    absent = {}
    for dataset in request.datasets:
        options = request.options(model, dataset)
        config = BBQRecConfig(model, dataset, request.config_files, options)
        try:
            check_files(config)
        except UserError as error:
            root = Path(config["data_path"]).parent
            if dataset not in paper.DATASETS:
                raise UserError(_unknown(dataset, root)) from error
            option = "" if root == Path("dataset") else f" --data_path {shlex.quote(str(root))}"
            absent[dataset] = (
                f"{dataset} is not prepared; `python -m recbole_bbqrec prepare {dataset}{option}` "
                "makes it from McAuley's files, which it downloads if needed."
            )
    return absent


def _unknown(dataset: str, root: Path) -> str:
    prepared = sorted(p.name for p in root.glob("*") if (p / f"{p.name}.inter").is_file())
    known = list(dict.fromkeys((*paper.DATASETS, *prepared)))
    return (
        f"Option `--datasets` names {dataset}; expected data sets of the paper or of {root}: "
        f"{', '.join(known)}.{did_you_mean(dataset, known)}"
    )


def _place(store: RunStore, request: Request, dataset: str, setting: Setting) -> Place:
    given = request.options(setting.model, dataset)
    options = {**setting.defaults, **given, **setting.options}
    label = setting.label if setting.options or setting.defaults else ""
    run = Run(setting.model, dataset, options, request.config_files, label=label)
    runs = [replace(run, seed=seed) for seed in seeds_of(request.seeds, run)]
    planned = tuple(map(store.plan, runs))
    if setting.needs and setting.needs not in (planned[0].config["modalities"] or ()):
        return Place(dataset, setting, reason=f"no {setting.needs} features")
    if setting.brief is None or all(store.find(run) is not None for run in planned):
        return Place(dataset, setting, planned)
    short = {**options, **setting.brief}
    brief = tuple(store.plan(replace(run, overrides=short, test=False)) for run in runs)
    return Place(dataset, setting, brief, briefly=True)


def _within(store: RunStore, runs: Sequence[Planned], seconds: float) -> list[Outcome]:
    stored = [store.find(run) for run in runs]
    progress = Progress(store.echo, total=sum(outcome is None for outcome in stored))
    for known in filter(None, stored):
        progress.add_known(known.model, known.dataset, known.result)
    outcomes: list[Outcome] = []
    start, over = time.monotonic(), False
    for run, outcome in zip(runs, stored):
        if outcome is None and not over:
            over = _exceeds(progress, run, start + seconds - time.monotonic(), store.echo)
        if outcome is not None:
            outcomes.append(outcome)
        elif over:
            outcomes.append(Outcome(run, run.directory, error=NOT_RUN))
        else:
            outcomes += store.ensure([run], progress)
    return outcomes


def _exceeds(progress: Progress, run: Planned, left: float, echo: Callable[[str], None]) -> bool:
    expected = progress.expected(run.run.model, run.run.dataset)
    if left > 0 and (expected is None or expected <= left):
        return False
    takes = "" if expected is None else f", the next run takes about {duration(expected)}"
    echo(
        f"Budget: {duration(max(0.0, left))} left{takes}. No more runs are started; the same "
        "command continues from here."
    )
    return True
