"""Times that RecBole's float32 cannot tell apart, replaced by their order.

RecBole sorts a user's events by a float32 column. Near today's Unix time that has steps of 128
seconds: of events that lie closer, the order of the file would decide, and with it which item is
held out.
"""

from __future__ import annotations

from logging import getLogger
from typing import Any

import numpy as np

_EXACT = 1 << 24  # whole numbers up to here are exact in float32


def keep_order(dataset: Any) -> None:
    """Make the times of a data set that is read, and not yet built, safe to sort as float32.

    Times that are all told apart stay as they are. Else each becomes its rank among the times
    of the data set, or, should these be too many for float32, among those of its user; equal times
    stay equal.
    """
    field, frame = dataset.time_field, dataset.inter_feat
    if field is None or field not in frame or frame[field].dtype != np.float64:
        return
    times = frame[field]
    distinct = np.unique(times.to_numpy())
    if len(np.unique(distinct.astype(np.float32))) == len(distinct):
        return
    by_user = len(distinct) > _EXACT and dataset.uid_field is not None
    ranked = times.groupby(frame[dataset.uid_field]) if by_user else times
    frame[field] = ranked.rank(method="dense").astype(np.float64)
    getLogger().info(
        f"`{field}`: {len(distinct):,} times, too close to each other for float32; their order "
        "is used in their place"
    )
