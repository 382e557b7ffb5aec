"""The shared step and schedule: rates to the last bit, from any step, and clipped gradients."""

from __future__ import annotations

import pytest
import torch

from recbole_bbqrec.nn import optim


def take(optimizer, model, schedule, n):
    """Take ``n`` steps; return their rates, as ``step`` and as the optimizer reports them."""
    rates = []
    for _ in range(n):
        before = optimizer.param_groups[-1]["lr"]
        rates.append(optim.step(model.weight.sum(), model, optimizer, schedule=schedule))
        assert rates[-1] == before
    return rates


@pytest.mark.parametrize(("warmup", "done"), [(0, 0), (13, 0), (13, 40), (13, 5)])
@pytest.mark.parametrize("peak", [0.003, 0.0007])
def test_the_rate_is_a_function_of_the_step(warmup, done, peak):
    model = torch.nn.Linear(2, 2)
    optimizer = optim.build_optimizer(
        model.named_parameters(), learning_rate=peak, weight_decay=0.1
    )
    expected = [peak * optim.warmup_cosine(step, 97, warmup) for step in range(97)]
    state = optimizer.state_dict()
    schedule = optim.cosine_schedule(optimizer, peak, total=97, warmup=warmup, done=done)
    assert take(optimizer, model, schedule, 30) == expected[done : done + 30]
    optimizer.load_state_dict(state)  # without a peak rate, as an earlier version left it
    schedule = optim.cosine_schedule(optimizer, peak, total=97, warmup=warmup, done=done)
    assert take(optimizer, model, schedule, 3) == expected[done : done + 3]


def test_gradients_are_cleared_and_clipped():
    model = torch.nn.Linear(3, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    before = model.weight.detach().clone()
    for _ in range(2):
        optim.step(100 * model.weight.sum(), model, optimizer, clip={"max_norm": 0.5})
    torch.testing.assert_close(before - model.weight, torch.full((1, 3), 2 * 0.5 / 3**0.5))
    assert optim.step(model.weight.sum(), model, optimizer) == 1.0
