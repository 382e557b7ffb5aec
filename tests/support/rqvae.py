"""Shared by the tests of TIGER, CoST and LETTER: tiny settings, tiny networks, reload."""

from __future__ import annotations

import torch

from recbole_bbqrec.quick_start import load_data_and_model
from recbole_bbqrec.trainer.registry import get_trainer_class

#: On top of conftest.TINY.
SMALL = {
    "encoder_hidden": [32], "codebook_size": 32, "codebook_dim": 8, "tokenizer_epochs": 6,
    "tokenizer_warmup_epochs": 0, "tokenizer_batch_size": 100, "num_beams": 10,
    "train_batch_size": 512, "tokenizer_learning_rate": 0.002,
}  # fmt: skip
NO_HISTORIES = torch.zeros(0, 1, dtype=torch.int64)


def small(tiny, **changes):
    """Options of a run on Mini that takes about two seconds."""
    dropped = ("sequence_hidden_size", "sequence_layers")
    kept = {key: value for key, value in tiny.items() if key not in dropped}
    return {**kept, **SMALL, **changes}


def features(n_items=41, dim=12, seed=0, absent=()):
    """Random features of n_items - 1 items: matrix [n_items, dim], present [n_items]."""
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(n_items, dim, generator=generator)
    present = torch.ones(n_items, dtype=torch.bool)
    present[[0, *absent]] = False
    matrix[~present] = 0
    return matrix, present


def term_values(net, items):
    """The loss terms of a list of items, as numbers."""
    with torch.no_grad():
        terms = net.losses(torch.tensor(list(items)), NO_HISTORIES, NO_HISTORIES)
    return {name: float(value) for name, value in terms.items()}


def check_run(result, term="reconstruction"):
    """A term of phase one and the loss of phase two fall; the saved model tests as the run did."""
    state = torch.load(result["files"]["resume"], weights_only=True)
    for phase, key in (("tokenize", term), ("generate", "loss")):
        history = state["loops"][phase]["history"]
        assert history[-1]["terms"][key] < history[0]["terms"][key], phase
    config, model, _, _, _, test_data = load_data_and_model(result["files"]["model"])
    trainer = get_trainer_class(config["model"])(config, model)
    assert dict(trainer.evaluate(test_data, load_best_model=False)) == result["test_result"]
    return state, model
