"""A step of phase one: the estimators' own optimizer beside the network's."""

from __future__ import annotations

import pytest

from recbole_bbqrec.data.histories import HistoryBatch
from recbole_bbqrec.trainer.phases.tokenize_phase import TokenizePhase
from tests.tokenizer.test_bbq_tokenizer import batch, make

ROUNDS = 5


def phase_of(net, precision):
    config = {
        "device": "cpu", "precision": precision, "seed": 3, "tokenizer_epochs": 2,
        "tokenizer_stopping_step": 1, "tokenizer_warmup_epochs": 0, "tokenizer_max_collisions": 1,
        "mim_inner_steps": ROUNDS, "mim_learning_rate": 0.02, "tokenizer_learning_rate": 0.01,
        "tokenizer_weight_decay": 0.0, "tokenizer_batch_size": 64,
    }  # fmt: skip
    return TokenizePhase(config, net, [None], None, None)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_likelihood_step_sees_the_weights_of_the_one_before(monkeypatch, precision):
    net = make()
    phase = phase_of(net, precision)
    losses, plain = [], net.estimator_loss

    def recorded(pairs):
        losses.append(plain(pairs))
        return losses[-1]

    monkeypatch.setattr(net, "estimator_loss", recorded)
    items, sequences, targets = batch()
    terms = phase._step(items, HistoryBatch(sequences, targets, (sequences > 0).sum(1)))
    values = [float(loss.detach()) for loss in losses]
    assert len(values) == ROUNDS and float(terms["estimator"].detach()) == values[-1]
    assert all(later < earlier for earlier, later in zip(values, values[1:])), values


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_step_reaches_every_weight(precision):
    net = make()
    net.initialise_codebooks(0)
    items, sequences, targets = batch()
    phase_of(net, precision)._step(
        items, HistoryBatch(sequences, targets, (sequences > 0).sum(1))
    )  # fmt: skip
    still = [
        name for name, parameter in net.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]  # fmt: skip
    assert not still


def test_dead_codes_wait_for_the_next_epoch(monkeypatch):
    """The state that is validated, and perhaps kept, is the one that the last step left."""
    net = make()
    phase = phase_of(net, "float32")
    items, sequences, targets = batch()
    histories = HistoryBatch(sequences, targets, (sequences > 0).sum(1))
    monkeypatch.setattr(phase, "_histories", lambda epoch: [histories])
    done = []

    def recorded(name, plain):
        return lambda *given: (done.append(name), plain(*given))[1]

    for name, of in (("start_of_epoch", net), ("end_of_epoch", net), ("_step", phase)):
        monkeypatch.setattr(of, name, recorded(name, getattr(of, name)))
    for epoch in range(phase.epochs):
        phase.train_epoch(epoch, lambda terms: None)
        phase.end_epoch(epoch)
    assert done == ["_step", "end_of_epoch", "start_of_epoch", "_step", "end_of_epoch"]
