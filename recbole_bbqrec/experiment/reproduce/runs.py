"""The runs of an experiment: planned, and made within a budget of time."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
    """The planned runs of one setting on one data set, a seed each, or why there are none."""

    dataset: str
    setting: Setting
    planned: tuple[Planned, ...] = ()
    reason: str = ""
    briefly: bool = False


@dataclass(frozen=True)
class Plan:
    """Every place of an experiment, and the data sets that are absent with how to make them."""

    request: Request
    places: tuple[Place, ...]
    absent: Mapping[str, str]

    @property
    def planned(self) -> list[Planned]:
        """Every run once: all settings with the first seed, then all with the next."""
        seeds = max((len(place.planned) for place in self.places), default=0)
        found: dict[Path, Planned] = {}
        for turn in range(seeds):
            for place in self.places:
                for run in place.planned[turn : turn + 1]:
                    found.setdefault(run.directory, run)
        return list(found.values())


def make_plan(store: RunStore, request: Request) -> Plan:
    """Resolve every run.

    Raises:
        UserError: a data set that neither the paper nor the data folder has; an option or file
            is not as it must be; or the runs are not comparable.
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
    """Make what is missing, as far as the budget allows.

    A run is started if the time it is expected to take still fits; the first one, of which
    nothing is known, always is. A started run is never cut short.
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
    """Say what is there, what will run, and what cannot."""
    there = {run.directory: store.find(run) is not None for run in plan.planned}
    missing = sum(not found for found in there.values())
    if there:
        count = f"{len(there)} runs in {store.root}"
        print(f"{count}: {len(there) - missing} there, {missing} to run")
    width = max((len(f"{p.dataset} {p.setting.label}") for p in plan.places), default=0)
    for place in plan.places:
        words = [
            f"seed {run.config['seed']} {'there' if there[run.directory] else 'to run'}"
            for run in place.planned
        ]
        text = place.reason or ", ".join(words)
        print(f"  {f'{place.dataset} {place.setting.label}':<{width}}  {text}")
    for how in plan.absent.values():
        print(f"  {how}")


# helpers --------------------------------------------------------------------------------------


def _absent(request: Request) -> dict[str, str]:
    """Data sets of the paper without files here -> how to make them."""
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
            place = "" if root == Path("dataset") else f" --data-path {shlex.quote(str(root))}"
            absent[dataset] = (
                f"{dataset} is not prepared; `python -m recbole_bbqrec prepare {dataset}{place}` "
                "makes it from McAuley's files, downloaded if need be."
            )
    return absent


def _unknown(dataset: str, root: Path) -> str:
    there = sorted(p.name for p in root.glob("*") if (p / f"{p.name}.inter").is_file())
    known = list(dict.fromkeys((*paper.DATASETS, *there)))
    return (
        f"Option `--datasets` names {dataset}; expected data sets of the paper or of {root}: "
        f"{', '.join(known)}.{did_you_mean(dataset, known)}"
    )


def _place(store: RunStore, request: Request, dataset: str, setting: Setting) -> Place:
    options = {**request.options(setting.model, dataset), **setting.options}
    label = setting.label if setting.options else ""
    run = Run(setting.model, dataset, options, request.config_files, label=label)
    runs = [replace(run, seed=seed) for seed in seeds_of(request.seeds, run)]
    planned = tuple(map(store.plan, runs))
    if setting.needs and setting.needs not in (planned[0].config["modalities"] or ()):
        return Place(dataset, setting, reason=f"no {setting.needs} features")
    if setting.brief is None or all(store.find(one) is not None for one in planned):
        return Place(dataset, setting, planned)
    short = {**options, **setting.brief}
    brief = tuple(store.plan(replace(one, overrides=short, test=False)) for one in runs)
    return Place(dataset, setting, brief, briefly=True)


def _within(store: RunStore, runs: Sequence[Planned], seconds: float) -> list[Outcome]:
    found = [store.find(run) for run in runs]
    progress = Progress(store.echo, total=sum(outcome is None for outcome in found))
    for known in filter(None, found):
        progress.add_known(known.run.model, known.run.dataset, known.result)
    outcomes: list[Outcome] = []
    start, over = time.monotonic(), False
    for run, outcome in zip(runs, found):
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
        "command goes on from here."
    )
    return True
