"""Optimizers and learning-rate schedules as functions of the step, so that nothing is hidden."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from recbole_bbqrec.errors import UserError

_LEARNERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}


def build_optimizer(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    *,
    learner: str = "adamw",
    learning_rate: float,
    weight_decay: float,
    undecayed: tuple[str, ...] = (),
) -> torch.optim.Optimizer:
    """Adam or AdamW; decay applies to matrices whose name holds none of ``undecayed``.

    Raises:
        UserError: ``learner`` is neither.
    """
    if learner.lower() not in _LEARNERS:
        raise UserError(f"Option `learner` is {learner!r}; expected one of {', '.join(_LEARNERS)}.")
    decayed: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in named_parameters:
        exempt = parameter.ndim < 2 or any(word in name for word in undecayed)
        (rest if exempt else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return _LEARNERS[learner.lower()](groups, lr=learning_rate, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def warmup_cosine(step: int, total: int, warmup: int) -> float:
    """Factor of the peak learning rate at ``step`` (from 0): linear up, then cosine to zero."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
