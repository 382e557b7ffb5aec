"""The runs of a comparison, and which of them the store has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recbole_bbqrec.experiment.common_options import check_common, seeds_of, taken_by
from recbole_bbqrec.experiment.store.store import Planned, Run, RunStore

_THERE, _TO_RUN, _TO_EVALUATE = _STATES = ("there", "to run", "trained, to evaluate anew")


def plan(
    store: RunStore,
    models: Sequence[str],
    datasets: Sequence[str],
    seeds: Sequence[int],
    config_files: Sequence[str],
    common: Mapping[str, Any],
    own: Mapping[str, Mapping[str, Any]],
) -> list[Planned]:
    """Plan every run: data set by data set, model by model, seed by seed.

    Args:
        store: where the runs are kept.
        models, datasets: their names.
        seeds: see :func:`recbole_bbqrec.experiment.common_options.seeds_of`.
        config_files: YAML files, later ones win.
        common: options for all models that read them.
        own: options of one model each, by its name.

    Raises:
        UserError: an option is unknown or out of range, or no model reads it.
    """
    check_common(common, models, datasets)
    files = tuple(config_files)
    planned = []
    for dataset in datasets:
        for model in models:
            options = {**taken_by(model, dataset, common), **own.get(model, {})}
            run = Run(model, dataset, options, files)
            for seed in seeds_of(seeds, run):
                planned.append(store.plan(Run(model, dataset, run.overrides, files, seed)))
    return planned


def plan_lines(store: RunStore, planned: Sequence[Planned]) -> tuple[list[str], int]:
    """Return lines that tell stored runs from missing ones, and the number of missing ones."""
    states = {run.directory: _state(store, run) for run in planned}
    counts = {state: list(states.values()).count(state) for state in _STATES}
    groups: dict[str, list[str]] = {}
    for run in planned:
        seeds = groups.setdefault(f"{run.run.dataset} {run.run.model}", [])
        seeds.append(f"{run.config['seed']} {states[run.directory]}")
    width = max(map(len, groups))
    told = ", ".join(f"{n} {state}" for state, n in counts.items() if n or state != _TO_EVALUATE)
    head = f"{len(planned)} runs in {store.root}: {told}"
    lines = [head, *(f"  {n:<{width}}  seeds {', '.join(s)}" for n, s in groups.items())]
    return lines, len(states) - counts[_THERE]


def _state(store: RunStore, run: Planned) -> str:
    if store.find(run) is not None:
        return _THERE
    return _TO_RUN if store.trained(run) is None else _TO_EVALUATE
