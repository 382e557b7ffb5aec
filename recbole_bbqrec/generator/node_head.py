"""Output weights of whole tokens, for what their codes cannot tell apart.

The logit of a composite token is the sum of its codes' logits, and codes are shared by many
items: two items of one cluster differ only where their codes do. With an item head every token
that exists also has a weight vector of its own: the mean, over the items below its trie node, of a
projection of the item's features (without any, of its phase-one vector) plus, where there is one,
the item's embedding that the encoder reads. Codes then carry what items have in common, embeddings
and features what they have not.

The head of a node is linear in the decoder's state h, so that codes and items add up to a single
vector and a bias: logit = h . weight + bias.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_bbqrec.generator import ragged
from recbole_bbqrec.generator.catalogue import Catalogue
from recbole_bbqrec.generator.root_loss import product_dtype
from recbole_bbqrec.generator.trie import Trie

Table = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class NodeWeights:
    """What the output weights of a catalogue's nodes are made of.

    * ``code_weights``: L tensors [M * N, d]; ``code_biases``: [L, M * N].
    * ``content``: maps an item's features or vector to d; means are mapped, not each item's.
    * ``items``: [n_items, d], or None without item embeddings.
    """

    catalogue: Catalogue
    code_weights: Sequence[Tensor]
    code_biases: Tensor
    content: Callable[[Tensor], Tensor]
    items: Tensor | None

    def tables(self, chosen: Sequence[Tensor]) -> list[Table]:
        """Weights [k, d] and biases [k] of all first-level nodes and of some of each later level.

        ``chosen``: int64 [k_l] for the levels l = 1 .. L - 1.
        """
        trie = self.catalogue.trie
        content = self.catalogue.root_content(product_dtype(self.code_biases))
        weights = [_RootSum.apply(self.code_weights[0], trie) + self.content(content)]
        biases = [_bias_sums(self.code_biases[0], trie.root_columns)]
        for level, nodes in enumerate(chosen, 1):
            columns = trie.columns(level, nodes)  # [k, M]
            codes = F.embedding_bag(columns, self.code_weights[level], mode="sum")  # [k, d]
            below = self.catalogue.mean_content(level, nodes)  # [k, F or V]
            weights.append(codes + self.content(below))
            biases.append(_bias_sums(self.code_biases[level], columns))
        if self.items is not None:
            means = _Means.apply(self.items, trie, *chosen)
            weights = [weight + mean for weight, mean in zip(weights, means)]
        return list(zip(weights, biases))

    def head(self) -> NodeHead:
        """Of all nodes."""
        codes = self.catalogue.trie.codes[1:]
        every = [torch.arange(len(level), device=level.device) for level in codes]
        weights, biases = zip(*self.tables(every))
        return NodeHead(weights, biases)


class NodeHead(NamedTuple):
    """For each level, the weights [n_l, d] and biases [n_l] of the trie's nodes."""

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]

    def to(self, dtype: torch.dtype) -> NodeHead:
        """Weights in ``dtype``; biases, which are added to sums, keep theirs."""
        return NodeHead(tuple(weight.to(dtype) for weight in self.weights), self.biases)

    def grid_logits(self, level: int, states: Tensor, child: Tensor) -> Tensor:
        """The same for C nodes a state: ``states`` [B, S, d], ``child`` [B, S, C] -> [B, S, C]."""
        weights = self.weights[level][child].to(states.dtype)  # [B, S, C, d]
        logits = (weights @ states.unsqueeze(-1)).squeeze(-1)
        return logits.to(_wide(logits)) + self.biases[level][child]


def _bias_sums(biases: Tensor, columns: Tensor) -> Tensor:
    """[M * N], int64 [k, M] -> [k]. Not by indexing, whose gradient sorts."""
    return biases.index_select(0, columns.flatten()).view(columns.shape).sum(1)


class _RootSum(torch.autograd.Function):
    """Rows of [M * N, d] added up over the codes of each first-level node: [n_0, d].

    The gradient adds up the nodes of each code, which the trie lists, where that of
    ``embedding_bag`` sorts them anew each time.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, trie: Trie) -> Tensor:
        ctx.trie = trie
        return F.embedding_bag(trie.root_columns, rows, mode="sum")

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        trie, upstream = ctx.trie, upstream.contiguous()
        return F.embedding_bag(trie.root_order, upstream, trie.root_offsets, mode="sum"), None


class _Means(torch.autograd.Function):
    """Means of rows of [n_items, d] below all first-level nodes and some nodes of later levels.

    An item lies below a single first-level node, so that the gradient is a look-up; the later
    levels' few rows are added to it, and a single array of this size is made.
    """

    @staticmethod
    def forward(ctx: Any, items: Tensor, trie: Trie, *chosen: Tensor) -> tuple[Tensor, ...]:
        ctx.trie, ctx.chosen = trie, chosen
        return (trie.mean_below(0, None, items),) + tuple(
            trie.mean_below(level, nodes, items) for level, nodes in enumerate(chosen, 1)
        )

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        trie: Trie = ctx.trie
        shares = upstream[0] / trie.item_ptr(0).diff().unsqueeze(1)
        roots = trie.item_nodes[:, 0]  # -1: not in the trie
        total = shares.index_select(0, roots.clamp(min=0))  # [n_items, d]
        total.index_fill_(0, (roots < 0).nonzero().squeeze(1), 0)
        for level, (nodes, gradient) in enumerate(zip(ctx.chosen, upstream[1:]), 1):
            owner, items, counts = trie.items_below(level, nodes)
            total.index_add_(0, items, (gradient / counts.unsqueeze(1)).index_select(0, owner))
        return total, None, *(None for _ in ctx.chosen)


def dense_logits(weights: Tensor, biases: Tensor, states: Tensor) -> Tensor:
    """Logits of all k nodes: [k, d], [k] and ``states`` [n, d] -> [n, k], float32 or wider."""
    logits = states @ weights.to(states.dtype).t()
    return logits.to(_wide(logits)) + biases


def listed_log_probs(
    weights: Tensor, biases: Tensor, states: Tensor, owner: Tensor, child: Tensor
) -> Tensor:
    """Log-probabilities [E] of nodes given their parents.

    ``weights`` [k, d], ``biases`` [k]; ``states`` [g, d], one row a parent; ``owner`` and
    ``child`` int64 [E] list, for each parent, all of its children as rows of ``weights``.
    """
    rows = states.index_select(0, owner)  # [E, d]
    chosen = weights.index_select(0, child)  # [E, d]
    logits = (rows.to(_wide(rows)) * chosen.to(_wide(chosen))).sum(1) + biases[child]
    return logits - ragged.group_logsumexp(logits, owner, len(states))[owner]


def root_log_probs(head: NodeHead, states: Tensor) -> Tensor:
    """Log-probabilities of the first-level nodes: ``states`` [n, d] -> [n, n_0]."""
    return dense_logits(head.weights[0], head.biases[0], states).log_softmax(1)


def child_log_probs(
    head: NodeHead, level: int, states: Tensor, owner: Tensor, child: Tensor
) -> Tensor:
    """:func:`listed_log_probs` where ``child`` numbers the nodes of ``level``."""
    return listed_log_probs(head.weights[level], head.biases[level], states, owner, child)


def _wide(values: Tensor) -> torch.dtype:
    return torch.promote_types(values.dtype, torch.float32)
