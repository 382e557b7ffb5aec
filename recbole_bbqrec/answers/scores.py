"""Scores of every item by a model that scores items, RecBole's included."""

from __future__ import annotations

from typing import Any

import torch
from recbole.data.interaction import Interaction
from torch import Tensor

_PAIRS = 1 << 16  # (history, item) pairs scored at a time, for models that score pairs only


def all_scores(model: Any, interaction: Interaction) -> Tensor:
    """Return scores [B, n_items] of a model that scores items, -inf for [PAD].

    RecBole's models without ``full_sort_predict`` score pair by pair.
    """
    try:
        scores = model.full_sort_predict(interaction)
    except NotImplementedError:
        scores = _scores_by_pairs(model, interaction)
    scores = scores.view(-1, model.n_items)
    scores[:, 0] = -torch.inf
    return scores


def _scores_by_pairs(model: Any, interaction: Interaction) -> Tensor:
    items = torch.arange(model.n_items, device=interaction[model.ITEM_SEQ].device)
    scores = []
    step = max(1, _PAIRS // model.n_items)
    for first in range(0, len(interaction), step):
        rows = interaction[first : first + step]
        pairs = rows.repeat_interleave(model.n_items)
        pairs.update(Interaction({model.ITEM_ID: items.repeat(len(rows))}))
        scores.append(model.predict(pairs))
    return torch.cat(scores)
