"""Recommendations of a loaded model to every user of the test split."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.protocols import RunConfig

_PREDICT_ROWS = 1 << 16  # (user, item) pairs per batch, for models that only score pairs


class Ranking(NamedTuple):
    """n test rows (one per user under leave-one-out) on the CPU, in the order of the test split.

    Attributes:
        users: int64 [n], internal ids.
        histories: int64 [n, T], right-padded with 0, cut to the length that the model sees.
        lengths: int64 [n].
        targets: int64 [n].
        items: int64 [n, K], best first.
    """

    users: Tensor
    histories: Tensor
    lengths: Tensor
    targets: Tensor
    items: Tensor

    def take(self, rows: Tensor) -> Ranking:
        """Return only the rows int64 [m]."""
        return Ranking(*(part[rows] for part in self))


@torch.no_grad()
def rank_test_users(config: RunConfig, model: Any, test_data: Any) -> Ranking:
    """Rank the catalogue for every row of ``test_data`` as in the run's evaluation.

    K is max(topk). Option ``mask_history`` leaves a user's history out.

    Raises:
        UserError: the run was evaluated on sampled items.
    """
    mode = config["eval_args"]["mode"]
    if any(value != "full" for value in (mode.values() if isinstance(mode, dict) else [mode])):
        raise UserError(
            f"Option `eval_args` of the run has mode {mode}; a report card needs `mode: full`, "
            "the ranking of the whole catalogue."
        )
    model.eval()
    device, k = torch.device(config["device"]), max(config["topk"])
    parts = []
    for interaction, *_ in test_data:
        interaction = interaction.to(device)
        if getattr(model, "two_phase", False):
            items = model.rank_interaction(interaction)
        else:
            items = _scores(config, model, interaction).topk(k, dim=1).indices
        parts.append(
            Ranking(
                users=interaction[model.USER_ID].cpu(),
                histories=interaction[model.ITEM_SEQ].cpu(),
                lengths=interaction[model.ITEM_SEQ_LEN].cpu(),
                targets=interaction[model.ITEM_ID].cpu(),
                items=items.cpu(),
            )
        )
    return Ranking(*(torch.cat(column) for column in zip(*parts)))


def _scores(config: RunConfig, model: Any, interaction: Any) -> Tensor:
    """Score all items as RecBole's trainer does: [B, n_items], -inf for [PAD]."""
    n_items = model.n_items
    try:
        scores = model.full_sort_predict(interaction)
    except NotImplementedError:
        scores = _by_pairs(model, interaction, n_items)
    scores = scores.view(-1, n_items)
    scores[:, 0] = -torch.inf
    if config["mask_history"]:
        scores.scatter_(1, interaction[model.ITEM_SEQ], -torch.inf)
    return scores


def _by_pairs(model: Any, interaction: Any, n_items: int) -> Tensor:
    """Score all items with a model that only scores (user, item) pairs: [B, n_items]."""
    items = torch.arange(n_items, device=interaction[model.ITEM_ID].device)
    scores = []
    step = max(1, _PREDICT_ROWS // n_items)
    for first in range(0, len(interaction), step):
        rows = interaction[first : first + step]
        pairs = rows.repeat_interleave(n_items)
        pairs.update(Interaction({model.ITEM_ID: items.repeat(len(rows))}))
        scores.append(model.predict(pairs))
    return torch.cat(scores)
