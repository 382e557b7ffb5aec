"""``--KEY=VALUE`` for several models: each model gets the options that it reads.

An option that a model does not read would change only the key of its runs, which would then be
trained again for each value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recbole_bbqrec.config.config import BBQRecConfig, check_options_read, options_read
from recbole_bbqrec.config.options import check_known, is_default
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.experiment.store.store import Run

_MAX_SEEDS = 100  # a single larger number is probably meant as a seed, not as a count


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
    """Return the options that a run of ``model`` on ``dataset`` reads."""
    if not common:
        return {}
    read = options_read(model, dataset)
    return {key: value for key, value in common.items() if key in read}


def left_out(
    common: Mapping[str, Any], models: Sequence[str], datasets: Sequence[str]
) -> list[str]:
    """Return a message for each option that some of the models do not read."""
    lines = []
    for key, value in common.items():
        without = [m for m in models if not any(key in options_read(m, d) for d in datasets)]
        if without and not is_default(key, value):
            lines.append(f"`{key}` is left out for {', '.join(without)}: not read there")
    return lines


def seeds_of(numbers: Sequence[int], run: Run) -> list[int]:
    """Return the seeds of ``--seeds``: one number N is N seeds from the run's own up.

    Raises:
        UserError: the count is out of range, or the seeds are not distinct.
    """
    if len(numbers) > 1:
        if len(set(numbers)) != len(numbers) or min(numbers) < 0:
            raise UserError(
                f"Option `--seeds` is {list(numbers)}; expected different seeds from 0."
            )
        return list(numbers)
    count = numbers[0]
    if not 1 <= count <= _MAX_SEEDS:
        raise UserError(
            f"Option `--seeds` is {count}; one number is how many seeds, 1 to {_MAX_SEEDS}. "
            f"For a single seed write --seed={count}."
        )
    first = BBQRecConfig(run.model, run.dataset, run.config_files, run.overrides)["seed"]
    return list(range(first, first + count))
