"""Cross-entropy over the first level with an item head.

The largest products of a training step: every target against every item, and the masses of all
first-level nodes. Value and gradient are computed together, from the same probabilities, some
targets at a time; only the gradient is kept.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_bbqrec.generator.head.item_scores import ItemScores, product_dtype, sum_below_roots

_SCORES = 1 << 21  # scores held at a time on a CPU
_SCORES_ELSEWHERE = 1 << 25  # on other devices, where few large operations are best


class _RootLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        keys: Tensor,
        states: Tensor,
        repeat: Tensor,
        scores: ItemScores,
        nodes: Tensor,
    ) -> Tensor:
        dtype = product_dtype(states)
        scores = replace(scores, keys=keys.to(dtype), states=states.to(dtype))
        trie, wide = scores.trie, scores.dtype
        tiny = torch.finfo(wide).tiny
        want_grad = any(ctx.needs_input_grad)
        roots = trie.item_nodes[trie.leaf_items, 0]  # [I]
        total = logits.new_zeros((), dtype=wide)
        d_keys = torch.zeros(keys.shape, dtype=wide, device=keys.device) if want_grad else None
        d_logits, d_states, d_repeat = [], [], []
        at_once = _SCORES if keys.device.type == "cpu" else _SCORES_ELSEWHERE
        width = max(16, at_once // len(keys))
        for start in range(0, len(nodes), width):
            part = slice(start, start + width)
            held, node = scores.take(part), nodes[part].unsqueeze(0)  # [1, w]
            # Multiply exponentials of scores and of codes' logits, to take a single logarithm.
            weights = held.every()  # [I, w]
            weights.sub_(weights.amax(0)).exp_()
            mass = sum_below_roots(trie, weights).clamp_(min=tiny)  # [n_0, w]
            table = logits[part].to(wide).t().contiguous()  # [M * N, w]
            codes = F.embedding_bag(trie.root_columns, table, mode="sum")  # [n_0, w]
            peak = codes.amax(0)  # [w]
            own = codes.gather(0, node) + mass.gather(0, node).log()  # [1, w]
            odds = codes.sub_(peak).exp_().mul_(mass)
            norm = odds.sum(0).clamp_(min=tiny)  # [w]
            total += (norm.log() + peak - own).sum()
            if d_keys is None:
                continue
            change = odds.div_(norm)  # gradient of a node's logit: [n_0, w]
            change.scatter_(0, node, change.gather(0, node) - 1)
            by_code = F.embedding_bag(trie.root_order, change, trie.root_offsets, mode="sum")
            d_logits.append(by_code.t())  # [w, M * N]
            # An item's share of its node's gradient is its share of the mass.
            change.div_(mass)
            weights.mul_(change.index_select(0, roots))  # [I, w]
            d_repeat.append(torch.where(held.seen >= 0, weights[held.seen_cells()], 0))
            low = weights.to(dtype)
            d_keys += low @ held.states
            d_states.append(low.t() @ scores.keys)
        if d_keys is not None:
            parts = (torch.cat(d_logits), d_keys, torch.cat(d_states), torch.cat(d_repeat))
            inputs = (logits, keys, states, repeat)
            ctx.save_for_backward(*(g.to(x.dtype) for g, x in zip(parts, inputs)))
        return total

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        return *(part * upstream.to(part.dtype) for part in ctx.saved_tensors), None, None


def root_loss(logits: Tensor, scores: ItemScores, nodes: Tensor) -> Tensor:
    """Sum -log P(node) over the first level, at least float32.

    ``logits`` [n, M * N] over codes, ``nodes`` int64 [n]; ``scores`` of the same n histories.
    """
    inputs = (logits, scores.keys, scores.states, scores.repeat)
    value: Tensor = _RootLoss.apply(*inputs, scores, nodes)  # type: ignore[no-untyped-call]
    return value
