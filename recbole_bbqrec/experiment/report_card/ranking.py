"""Recommendations of a loaded model to every user of the test split."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from recbole_bbqrec.answers.scores import all_scores
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.model.registry import spec
from recbole_bbqrec.protocols import RunConfig


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
        if spec(config["model"]).two_phase:
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
    scores = all_scores(model, interaction)
    if config["mask_history"]:
        scores.scatter_(1, interaction[model.ITEM_SEQ], -torch.inf)
    return scores
