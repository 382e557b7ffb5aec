"""Metrics of a run before and after an update, on the newest day of events."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timezone

import numpy as np
import torch
from torch import Tensor

from recbole_bbqrec.loaded_run import LoadedRun

_ROWS = 1024  # histories ranked at a time
_DAY = 86_400  # seconds


@dataclass(frozen=True)
class NewestDay:
    """Metrics of test targets on the newest day; neither model was trained on them.

    Attributes:
        day: ISO date (UTC); None where times are not known: then of all users with new events.
        targets: number of these targets.
        unknown: targets that the earlier run does not have as items; it misses them.
        before, after: metrics by name, such as ``recall@10``; empty without a target.
    """

    day: str | None
    targets: int
    unknown: int
    before: dict[str, float]
    after: dict[str, float]


def measure_newest_day(old: LoadedRun, new: LoadedRun, users: Collection[str]) -> NewestDay:
    """Rank the test targets on the newest day of ``new``'s data with both runs.

    Histories are those of the new data. The old run reads them without the items that it does not
    have. ``users`` are tokens of the users who have new events.
    """
    part, events = new.test_data._dataset, new.dataset.file_events
    rows, index = part.inter_feat, getattr(part, "event_index", None)
    day = None
    if events.known.any() and index is not None:
        newest = np.nanmax(events.days)
        chosen = new.dataset.events.days[index] == newest
        moment = datetime.fromtimestamp(float(newest) * _DAY, timezone.utc)
        day = moment.date().isoformat()
    else:
        tokens = part.field2id_token[part.uid_field][rows[part.uid_field].numpy()]
        chosen = np.isin(tokens.astype(str), list(users))
    unknown, before, after = measure(old, new, chosen)
    return NewestDay(day, int(chosen.sum()), unknown, before, after)


def measure(
    old: LoadedRun, new: LoadedRun, chosen: np.ndarray
) -> tuple[int, dict[str, float], dict[str, float]]:
    """Rank the test targets ``chosen`` bool [n] of ``new``'s data with both runs.

    Returns the number of those that ``old`` does not have as items, and the metrics of both.
    """
    part = new.test_data._dataset
    kept, rows = torch.from_numpy(np.flatnonzero(chosen)), part.inter_feat
    rows = rows[kept]
    history = rows[part.iid_field + part.config["LIST_SUFFIX"]].long()
    target = rows[part.iid_field].long()
    number_of = {token: number for number, token in enumerate(old.dataset.item_tokens)}
    earlier = torch.tensor([number_of.get(token, 0) for token in new.dataset.item_tokens])
    unknown = int((earlier[target] == 0).sum())
    before = _metrics(old, earlier[history], earlier[target])
    return unknown, before, _metrics(new, history, target)


# helpers --------------------------------------------------------------------------------------


def _metrics(run: LoadedRun, history: Tensor, target: Tensor) -> dict[str, float]:
    """Return recall and NDCG of targets [n] after histories [n, T], both 0 where unknown."""
    if not len(target):
        return {}
    order = (history == 0).sort(dim=1, stable=True).indices
    history = history.gather(1, order)  # known items first, in their order
    lengths = (history > 0).sum(1)
    cutoffs = sorted(run.config["topk"])
    ranks = torch.zeros(len(target), dtype=torch.int64)  # from 1; 0: not in the list
    device = run.config["device"]
    for part in (lengths > 0).nonzero().squeeze(1).split(_ROWS):
        ids, _ = run.model.recommend(history[part].to(device), lengths[part], cutoffs[-1])
        hits = (ids.cpu() == target[part].unsqueeze(1)) & (target[part] > 0).unsqueeze(1)  # [b, k]
        ranks[part] = (hits * torch.arange(1, cutoffs[-1] + 1)).sum(1)
    found = ranks.double()
    values = {}
    for k in cutoffs:
        hit = (ranks > 0) & (ranks <= k)
        gain = torch.where(hit, 1 / torch.log2(found + 1), 0)
        values[f"recall@{k}"], values[f"ndcg@{k}"] = float(hit.double().mean()), float(gain.mean())
    return values
