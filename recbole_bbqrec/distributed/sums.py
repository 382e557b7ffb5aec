"""Tensors of several processes: sums with gradients, and the rows that each process works on.

A batch is the same in every process, and each works on every n-th row of it (:func:`part`). A
loss is a sum over rows divided by a number of the whole batch, so that the parts of the processes
add up to it, and their gradients to its gradient (:func:`sum_gradients`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from recbole_bbqrec.distributed.group import rank, running, talk, world_size


def part() -> slice:
    """Return the rows of a batch that this process works on; all for a process alone."""
    return slice(rank(), None, world_size()) if running() else slice(None)


def own_of(mask: Tensor) -> Tensor:
    """Return which of the true cells of ``mask`` lie in rows of this process.

    bool [n, ...] -> int64 [p], numbers of true cells, counted row by row from 0.

    >>> own_of(torch.tensor([[True, False], [True, True]]))
    tensor([0, 1, 2])
    """
    number = (mask.flatten().cumsum(0) - 1).view_as(mask)
    return number[part()][mask[part()]]


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return _summed(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _summed(gradient)  # every process's part of the loss depends on the sum


def _summed(tensor: Tensor) -> Tensor:
    result = tensor.detach().clone(memory_format=torch.contiguous_format)
    talk(dist.all_reduce, result)
    return result


def total(tensor: Tensor) -> Tensor:
    """Add up a tensor over the processes, differentiably."""
    if not running():
        return tensor
    result: Tensor = _Total.apply(tensor)  # type: ignore[no-untyped-call]
    return result


def mean(values: Tensor) -> Tensor:
    """Return this process's part of the mean of ``values`` [n] of all processes, a scalar."""
    if not running():
        return values.mean()
    count = total(torch.tensor(values.numel(), device=values.device))
    return values.sum() / count.clamp(min=1)


def rows_of_all(rows: Tensor, n: int) -> Tensor:
    """Put together the ``n`` rows of which each process has its :func:`part`: [p, ...] -> [n, ...].

    Differentiable. By a sum with zeros, which is exact, and simpler than unequal parts.
    """
    if not running():
        return rows
    everything = torch.zeros(n, *rows.shape[1:], dtype=rows.dtype, device=rows.device)
    mine = torch.arange(n, device=rows.device)[part()]
    return total(everything.index_copy(0, mine, rows))


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Add up the gradients over the processes, in one message; None where no process has one."""
    if not running():
        return
    chosen = [p for p in parameters if p.requires_grad]
    absent = [p.grad is None for p in chosen]
    flags = torch.tensor([not missing for missing in absent]).to(chosen[0])
    grads = [p.new_zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in chosen]
    message = torch.cat([*grads, flags])
    talk(dist.all_reduce, message)
    *sums, present = message.split([*(p.numel() for p in chosen), len(chosen)])
    has = present.tolist() if any(absent) else [1.0] * len(chosen)
    for parameter, value, some in zip(chosen, sums, has):
        parameter.grad = value.view_as(parameter) if some else None


def of_main(tensor: Tensor) -> Tensor:
    """Return the tensor that process 0 has; it has the same shape everywhere."""
    if not running():
        return tensor
    held = tensor.detach().clone(memory_format=torch.contiguous_format)
    talk(dist.broadcast, held, src=0)
    return held


@torch.no_grad()
def synchronise(module: nn.Module) -> None:
    """Give every process the parameters and the stored buffers of process 0."""
    if not running():
        return
    for value in module.state_dict().values():
        held = value.contiguous()
        talk(dist.broadcast, held, src=0)
        if held is not value:
            value.copy_(held)


def draw_apart(*seeds: int) -> None:
    """Seed torch by ``seeds`` and the process's number, so that no two drop the same units.

    Process 0 keeps its state, with which a run alone goes on. The generators of NumPy and Python
    stay alike everywhere: the loaders draw from them.
    """
    if running() and rank() > 0:
        state = np.random.SeedSequence((*seeds, rank())).generate_state(2)
        torch.manual_seed(int(state[0]) << 31 ^ int(state[1]))
