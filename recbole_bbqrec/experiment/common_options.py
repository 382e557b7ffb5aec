"""``--set KEY=VALUE`` for several models: each of them takes the options that it reads.

An option that a model does not read would change nothing but the key of its runs, which would then
be trained once more for each value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recbole_bbqrec.config.config import BBQRecConfig, check_options_read, options_read
from recbole_bbqrec.config.options import check_known, is_default
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.experiment.store.store import Run

_MOST_SEEDS = 100  # a single number above this was meant as a seed, not as how many


def check_common(common: Mapping[str, Any], models: Sequence[str], datasets: Sequence[str]) -> None:
    """Raise a UserError for the first option that no model reads on any data set."""
    if not common:
        return
    read = frozenset[str]().union(*(options_read(m, d) for m in models for d in datasets))
    for key, value in common.items():
        if key in read or is_default(key, value):
            continue
        if len(models) == 1:
            check_options_read(models[0], datasets[0], {key: value})
        check_known([key], read, f"for any of the models {', '.join(models)}")


def taken_by(model: str, dataset: str, common: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the options that a run of ``model`` on ``dataset`` reads."""
    if not common:
        return {}
    read = options_read(model, dataset)
    return {key: value for key, value in common.items() if key in read}


def left_out(
    common: Mapping[str, Any], models: Sequence[str], datasets: Sequence[str]
) -> list[str]:
    """One line for each option that some of the models do not read."""
    lines = []
    for key, value in common.items():
        without = [m for m in models if not any(key in options_read(m, d) for d in datasets)]
        if without and not is_default(key, value):
            lines.append(f"`{key}` is left out for {', '.join(without)}: not read there")
    return lines


def seeds_of(given: Sequence[int], run: Run) -> list[int]:
    """The seeds that ``--seeds`` asks for: that many from the run's own up, or those given.

    Raises:
        UserError: not a sensible number of seeds, or not different seeds.
    """
    if len(given) > 1:
        if len(set(given)) != len(given) or min(given) < 0:
            raise UserError(f"Option `--seeds` is {list(given)}; expected different seeds from 0.")
        return list(given)
    count = given[0]
    if not 1 <= count <= _MOST_SEEDS:
        raise UserError(
            f"Option `--seeds` is {count}; one number says how many seeds, 1 to {_MOST_SEEDS}. "
            f"For one seed alone write --set seed={count}."
        )
    first = BBQRecConfig(run.model, run.dataset, run.config_files, run.overrides)["seed"]
    return list(range(first, first + count))
