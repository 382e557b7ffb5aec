"""Training steps of phase two that never make the CPU wait for the device."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from recbole_bbqrec.nn import optim
from tests.support.generator import histories, small_catalogue, small_generator
from tests.support.second_device import second_device, waits

N_ITEMS = 30
HEAD = {
    "generation_loss": "item", "item_embedding": True, "item_head": True, "repeat_logit": True,
    "n_items": N_ITEMS, "feature_dim": 4, "history_tokens": "item", "dropout": 0.2,
}  # fmt: skip
FORMS = {
    "BBQRec": HEAD,
    "sampled item head": {**HEAD, "item_head_sampling": "sampled", "item_head_samples": 10},
    "TIGER": {"similarity": False, "dropout": 0.2},
    "items, no head": {"generation_loss": "item"},
    "bidirectional": {"history_encoding": "bidirectional", "decoder_start": "token"},
}


def batch(encoding: str) -> tuple[torch.Tensor, torch.Tensor]:
    items = histories(small_catalogue(N_ITEMS), [4, 2, 6, 1], 6)
    valid = items != 0
    if encoding == "bidirectional":
        last = torch.arange(6) == valid.sum(1, keepdim=True) - 1
        return items, torch.where(last, 5, 0)
    return items, torch.where(valid, items.roll(1, 0).clamp(min=1), 0)


@pytest.mark.parametrize("form", FORMS)
def test_a_step_waits_for_nothing(form: str) -> None:
    """Loss, gradients, clipping and the optimizer, after the first step."""
    torch.manual_seed(1)
    options: dict[str, Any] = FORMS[form]
    catalogue = small_catalogue(N_ITEMS, feature_dim=options.get("feature_dim", 0))
    network = small_generator(catalogue, **options).train()
    items, targets = batch(network.config.history_encoding)
    with second_device() as device:
        network.to(device)
        there = catalogue.to(device)
        optimizer = optim.build_optimizer(
            network.named_parameters(), learning_rate=1e-3, weight_decay=0.1
        )
        for step in range(2):
            with waits() as counted:
                loss, _ = network.loss(there, items, targets)
                optim.step(loss, network, optimizer, clip={"max_norm": 1.0})
            assert step == 0 or not counted, counted


def test_waits_are_seen() -> None:
    with second_device() as device:
        x = torch.arange(4).to(device)
        mask = x > 1
        for ask in (
            lambda: bool(mask.any()),
            lambda: x[mask],
            lambda: mask.nonzero(),
            lambda: torch.unique(x),
            lambda: x.tolist(),
            lambda: x.cpu(),
            lambda: torch.ones(3).to(device),
            lambda: x[torch.tensor([1, 2])],
            lambda: torch.repeat_interleave(x, x),
        ):
            with waits() as counted:
                ask()
            assert sum(counted.values()) >= 1, ask
        with waits() as counted:
            torch.ones(3).to(device, non_blocking=True) * 2.0
            torch.repeat_interleave(x, x, output_size=6)
            x[x].sum().clamp_(max=3)
        assert not counted
