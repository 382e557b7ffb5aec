"""Metrics of the test targets by their distance in time, and by what training knew of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

#: Upper ends, in days, of the groups by distance between the history's last item and the target.
_GAPS = (7, 30, 180)

SAME_DAY, LATER = "same day", "later day"
SEEN, UNSEEN = "transition in training", "transition not in training"
COLD = "item not in training"


def target_groups(targets: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Group the targets of an evaluated split: name -> bool [n], in the order of a table.

    Args:
        targets: ``memorized``, ``cold`` and, if times are known, ``gap_days`` and ``same_day``,
            each [n]; see :mod:`recbole_bbqrec.data.protocol.targets`.

    >>> gaps, same = np.array([0.0, 3.0, 400.0]), np.array([True, False, False])
    >>> no = np.zeros(3, dtype=bool)
    >>> groups = target_groups({"gap_days": gaps, "same_day": same, "memorized": no, "cold": no})
    >>> {name: int(mask.sum()) for name, mask in groups.items()}  # doctest: +NORMALIZE_WHITESPACE
    {'all': 3, 'same day': 1, 'later day': 2, 'up to 7 days later': 1, 'over 180 days later': 1,
     'transition not in training': 3}
    """
    groups: dict[str, np.ndarray] = {}
    if "gap_days" in targets:
        gap, same = targets["gap_days"], targets["same_day"]
        known = ~np.isnan(gap)
        later = known & ~same
        groups.update({SAME_DAY: known & same, LATER: later, "time unknown": ~known})
        for low, high in zip((0, *_GAPS), _GAPS):
            name = f"{low + 1} to {high} days later" if low else f"up to {high} days later"
            groups[name] = later & (gap > low) & (gap <= high)
        groups[f"over {_GAPS[-1]} days later"] = later & (gap > _GAPS[-1])
    if "memorized" in targets:
        groups.update({SEEN: targets["memorized"], UNSEEN: ~targets["memorized"]})
        groups[COLD] = targets["cold"]
    n = len(next(iter(groups.values()))) if groups else 0
    filled = {name: mask for name, mask in groups.items() if mask.any()}
    return {"all": np.ones(n, dtype=bool), **filled} if filled else {}


def by_group(
    values: Mapping[str, np.ndarray], targets: Mapping[str, np.ndarray]
) -> dict[str, dict[str, Any]]:
    """Return number of targets and mean of each metric by group, as plain data.

    ``values`` are metric -> float [n]; the result is empty if nothing is known of the targets.
    """
    return {
        group: {
            "targets": int(mask.sum()),
            "metrics": {name: float(value[mask].mean()) for name, value in values.items()},
        }
        for group, mask in target_groups(targets).items()
    }
