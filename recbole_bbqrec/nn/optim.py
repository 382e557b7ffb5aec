"""The optimizer, the learning-rate schedule and the step that every training loop shares."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from recbole_bbqrec.distributed.sums import sum_gradients
from recbole_bbqrec.errors import UserError

_LEARNERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}


def build_optimizer(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    *,
    learner: str = "adamw",
    learning_rate: float,
    weight_decay: float,
    undecayed: tuple[str, ...] = (),
    betas: tuple[float, float] = (0.9, 0.999),
) -> torch.optim.Optimizer:
    """Return Adam or AdamW; matrices decay unless their name contains a word of ``undecayed``.

    ``betas``: decay of the averages of the gradient and of its square.

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
    optimizer: torch.optim.Optimizer = _LEARNERS[learner.lower()](
        groups, lr=learning_rate, betas=betas, fused=True
    )
    return optimizer


def warmup_cosine(step: int, total: int, warmup: int) -> float:
    """Return the factor of the peak rate at ``step`` (from 0): linear rise, cosine fall to zero."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))


def cosine_schedule(
    optimizer: torch.optim.Optimizer, peak: float, *, total: int, warmup: int = 0, done: int = 0
) -> LambdaLR:
    """Return the schedule :func:`warmup_cosine` over ``total`` steps, of which ``done`` are done.

    The rate depends on the step alone, so a resumed run needs no state of a schedule.
    """
    for group in optimizer.param_groups:
        group["initial_lr"] = peak  # LambdaLR multiplies this; a loaded optimizer may lack it
    return LambdaLR(optimizer, lambda step: warmup_cosine(step, total, warmup), done - 1)


def step(
    loss: Tensor,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    schedule: LRScheduler | None = None,
    clip: Mapping[str, Any] | None = None,
) -> float:
    """Take one gradient step and return its learning rate.

    Args:
        loss: a scalar; of several processes, this one's part, and the parts add up to the loss.
        model: its gradients are clipped.
        optimizer: its parameters are changed.
        schedule: sets the rate of the next step.
        clip: arguments of ``clip_grad_norm_``; None or empty for no clipping.
    """
    rate: float = optimizer.param_groups[0]["lr"]
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    sum_gradients(p for group in optimizer.param_groups for p in group["params"])
    if clip:
        clip_grad_norm_(model.parameters(), **clip)
    optimizer.step()
    if schedule is not None:
        schedule.step()
    return rate
