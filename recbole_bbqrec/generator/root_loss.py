"""Cross-entropy over all first-level nodes of an item head.

The largest product of a training step: every target against every first-level token. The gradient
is computed together with the value, from the same probabilities, some targets at a time; only
what the backward pass hands on is kept.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_LOGITS = 1 << 22  # held at a time


class _RootLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, biases: Tensor, states: Tensor, nodes: Tensor) -> Tensor:
        dtype = product_dtype(states)
        wide = torch.promote_types(dtype, torch.float32)
        table, every = weights.to(dtype), states.to(dtype)
        want_grad = any(ctx.needs_input_grad)
        total = biases.new_zeros((), dtype=wide)
        d_states, d_weights, d_biases = [], None, None
        width = max(16, _LOGITS // len(table))
        for state, node in zip(every.split(width), nodes.split(width)):
            logits = (state @ table.t()).to(wide).add_(biases)  # [w, k]
            probability = logits.softmax(1)
            # The largest logit and its probability give the normaliser: no second exponential.
            norm = logits.amax(1) - probability.amax(1).log()
            place = node.unsqueeze(1)
            total += (norm - logits.gather(1, place).squeeze(1)).sum()
            if not want_grad:
                continue
            d_logits = probability.scatter_(1, place, probability.gather(1, place) - 1)
            bias_part = d_logits.sum(0)
            d_logits = d_logits.to(dtype)
            d_states.append(d_logits @ table)
            weight_part = d_logits.t() @ state
            if d_weights is None or d_biases is None:
                d_weights, d_biases = weight_part, bias_part
            else:
                d_weights, d_biases = d_weights.to(wide).add_(weight_part), d_biases + bias_part
        if want_grad:
            ctx.save_for_backward(d_weights, d_biases, torch.cat(d_states))
            ctx.dtypes = weights.dtype, biases.dtype, states.dtype
        return total

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        parts = zip(ctx.saved_tensors, ctx.dtypes)
        return *(part.to(dtype) * upstream for part, dtype in parts), None


def root_loss(weights: Tensor, biases: Tensor, states: Tensor, nodes: Tensor) -> Tensor:
    """Sum of -log P(node) over the first level, at least float32.

    ``weights`` [k, d] and ``biases`` [k] of all its nodes; ``states`` [n, d]; ``nodes`` int64 [n].
    """
    value: Tensor = _RootLoss.apply(weights, biases, states, nodes)
    return value


def product_dtype(states: Tensor) -> torch.dtype:
    """What autocast would multiply in."""
    kind = states.device.type
    if states.dtype == torch.float32 and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return states.dtype
