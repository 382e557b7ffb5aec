"""The learning rates of phase two."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from recbole_bbqrec.data.histories import Histories, HistoryBatches
from recbole_bbqrec.trainer.phases.generate_phase import GeneratePhase


class Model(nn.Module):
    """The parts of a generative model that the phase touches."""

    def __init__(self):
        super().__init__()
        self.generator = nn.Linear(1, 1)

    def history_loss(self, batch):
        loss = self.generator(torch.ones(1, 1)).sum()
        return loss, {"level_1": loss.detach()}


@pytest.mark.parametrize(
    ("schedule", "rates"), [("constant", [0.1, 0.1]), ("cosine", [0.1, 0.1 / 2])]
)
def test_the_rate_is_constant_or_falls_to_zero(schedule, rates):
    histories = Histories(torch.tensor([1, 2, 3]), torch.tensor([0, 3]), torch.tensor([1]))
    config = {
        "device": "cpu", "epochs": 2, "eval_step": 0, "stopping_step": 0, "learning_rate": 0.1,
        "valid_metric": "NDCG@10", "valid_metric_bigger": True, "warmup_ratio": 0.0,
        "lr_schedule": schedule, "clip_grad_norm": None, "learner": "adam", "weight_decay": 0.0,
        "seed": 0,
    }  # fmt: skip
    phase = GeneratePhase(
        config, Model(), HistoryBatches(histories, batch_size=8), None, lambda e: None, lambda: None
    )
    seen = []
    for epoch in range(2):
        phase.train_epoch(epoch, lambda terms: None)
        seen.append(phase.last_rate)
    assert seen == pytest.approx(rates)
