"""Training steps of phase one that never make the CPU wait for the device."""

from __future__ import annotations

import pytest
import torch

from recbole_bbqrec.nn import optim
from recbole_bbqrec.nn.transfer import send
from recbole_bbqrec.tokenizer.network import QuantizingNetwork
from recbole_bbqrec.tokenizer.rqvae.rqvae import RQVAETokenizer
from recbole_bbqrec.tokenizer.rqvae.settings import RQVAESettings
from tests.support.rqvae import features
from tests.support.second_device import second_device, waits
from tests.tokenizer.test_bbq_tokenizer import batch, make


def rqvae() -> RQVAETokenizer:
    settings = RQVAESettings(levels=2, codebook_size=4, codebook_dim=3, encoder_hidden=(6,))
    return RQVAETokenizer(settings, "text", *features(n_items=61))


@pytest.mark.parametrize("build", [make, rqvae], ids=["BBQRec", "TIGER"])
def test_a_step_waits_for_nothing(build) -> None:
    """The estimators' step and the network's, after the first one."""
    torch.manual_seed(1)
    network: QuantizingNetwork = build().train()
    network.initialise_codebooks(0)
    items, sequences, targets = batch()
    with second_device() as device:
        network.to(device)
        own = list(network.main_parameters())
        optimizer = optim.build_optimizer(
            ((n, p) for n, p in network.named_parameters() if any(p is q for q in own)),
            learning_rate=1e-3, weight_decay=0.1,
        )  # fmt: skip
        estimators = list(network.estimator_parameters())
        other = torch.optim.Adam(estimators, lr=1e-3) if estimators else None
        for step in range(2):
            with waits() as counted:
                if other is not None:
                    sample = torch.randperm(len(items), device=device)
                    pairs = network.mim_pairs(send(items, device)[sample])
                    optim.step(network.estimator_loss(pairs), network, other)
                terms = network.losses(items, sequences, targets)
                optim.step(terms["total"], network, optimizer)
            assert step == 0 or not counted, counted
