"""Log-normalisers over the children that exist, with bounded memory.

The logit of a child is the sum of its M codes' logits. Its normaliser needs every child of the
target's parent: nearly the whole catalogue at the first level, few below. Both functions compute
value and gradient together, block by block, and keep only the gradient [n, M * N]: an array of
[n, children] lives no longer than its block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_bbqrec.generator.batch.trie_paths import Choices, Run, runs_at
from recbole_bbqrec.generator.items import ragged
from recbole_bbqrec.generator.items.trie import Trie

_BLOCK = 1 << 21  # child logits held at a time


class _RootNormaliser(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, trie: Trie) -> Tensor:
        columns = trie.root_columns  # [n_0, M]
        want_grad = ctx.needs_input_grad[0]
        grad = torch.empty_like(logits) if want_grad else None
        value = logits.new_empty(len(logits))
        width = max(16, _BLOCK // len(columns))
        for start in range(0, len(logits), width):
            block = slice(start, start + width)
            # With targets along the contiguous axis, sums over codes are sums of whole rows.
            table = logits[block].t().contiguous()  # [M * N, w]
            scores = F.embedding_bag(columns, table, mode="sum")  # [n_0, w]
            peak = scores.amax(0)  # [w]
            weights = scores.sub_(peak).exp_()
            total = weights.sum(0)  # [w]
            value[block] = total.log() + peak
            if grad is not None:
                mass = F.embedding_bag(
                    trie.root_order, weights, trie.root_offsets, mode="sum"
                )  # [M * N, w]: summed weight of the children that hold each code
                grad[block] = mass.div_(total).t()
        ctx.save_for_backward(grad)
        return value

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = ctx.saved_tensors
        return upstream[:, None] * grad, None


class _ChildNormaliser(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, trie: Trie, level: int, parents: Tensor, runs: Sequence[Run]
    ) -> Tensor:
        first, counts = trie.children(level, parents)
        n_columns = logits.shape[1]
        flat = logits.contiguous().view(-1)
        grad = torch.zeros_like(flat) if ctx.needs_input_grad[0] else None
        value = logits.new_empty(len(logits))
        for run, n_children, _ in runs:
            owner, child = ragged.expand(first[run], counts[run], n_children)  # [E]
            row = (owner + run.start) * n_columns  # [E]
            cells = trie.columns(level, child) + row[:, None]  # [E, M]
            scores = flat[cells].sum(1)  # [E]
            value[run] = ragged.group_logsumexp(scores, owner, run.stop - run.start)
            if grad is not None:
                weights = (scores - value[run][owner]).exp_()  # [E]
                grad.index_add_(0, cells.flatten(), weights.repeat_interleave(cells.shape[1]))
        ctx.save_for_backward(None if grad is None else grad.view_as(logits))
        return value

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = ctx.saved_tensors
        return upstream[:, None] * grad, None, None, None, None


def root_normaliser(logits: Tensor, trie: Trie) -> Tensor:
    """Compute the log-sum-exp over all first-level nodes: ``logits`` [n, M * N] -> [n]."""
    value: Tensor = _RootNormaliser.apply(logits, trie)  # type: ignore[no-untyped-call]
    return value


def child_normaliser(
    logits: Tensor, trie: Trie, level: int, parents: Tensor, runs: Sequence[Run]
) -> Tensor:
    """Compute the log-sum-exp over the children, in ``level`` >= 1, of ``parents``.

    ``logits`` [n, M * N], ``parents`` int64 [n] (nodes of ``level - 1``) -> [n]; ``runs`` as
    :func:`child_runs` gives them.
    """
    arguments = logits, trie, level, parents, runs
    value: Tensor = _ChildNormaliser.apply(*arguments)  # type: ignore[no-untyped-call]
    return value


def child_runs(trie: Trie, paths: Choices, level: int) -> list[Run]:
    """Cut the targets open at ``level`` >= 1 into those whose children are scored together."""
    return runs_at(trie, paths, level, _BLOCK, by_items=False)
