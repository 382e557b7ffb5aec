"""Output weights of whole tokens, for what their codes cannot tell apart.

The logit of a composite token is the sum of its codes' logits, and codes are shared by many
items: two items of one cluster differ only where their codes do. With an item head every token
that exists also has a weight vector of its own: the mean, over the items below its trie node, of a
projection of the item's phase-one vector plus, where there is one, the item's embedding that the
encoder reads. Codes then carry what items have in common, embeddings what they have not.

The head of a node is linear in the decoder's state h, so that codes and items add up to a single
vector and a bias: logit = h . weight + bias.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_bbqrec.generator import ragged
from recbole_bbqrec.generator.trie import Trie


class NodeHead(NamedTuple):
    """For each level, the weights [n_l, d] and biases [n_l] of the trie's nodes."""

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]

    @classmethod
    def build(
        cls, trie: Trie, code_weights: list[Tensor], code_biases: Tensor, items: Tensor
    ) -> NodeHead:
        """Add up codes and items.

        ``code_weights``: L tensors [M * N, d]; ``code_biases``: [L, M * N]; ``items``:
        [n_items, d], an item's own weights.
        """
        weights, biases = [], []
        for level, table in enumerate(code_weights):
            columns = trie.columns(level)  # [n_l, M]
            codes = F.embedding_bag(columns, table, mode="sum")  # [n_l, d]
            weights.append(codes + mean_below(trie, level, items))
            biases.append(code_biases[level][columns].sum(1))
        return cls(tuple(weights), tuple(biases))

    def to(self, dtype: torch.dtype) -> NodeHead:
        """Weights in ``dtype``; biases, which are added to sums, keep theirs."""
        return NodeHead(tuple(weight.to(dtype) for weight in self.weights), self.biases)

    def root_logits(self, states: Tensor) -> Tensor:
        """Logits of all first-level nodes: ``states`` [n, d] -> [n, n_0], float32 or wider."""
        logits = states @ self.weights[0].to(states.dtype).t()
        return logits.to(_wide(logits)) + self.biases[0]

    def child_logits(self, level: int, states: Tensor, owner: Tensor, child: Tensor) -> Tensor:
        """Logits of listed nodes: ``states`` [g, d]; ``owner``, ``child`` int64 [E] -> [E].

        ``owner`` names the row of ``states`` that a node of ``level`` is scored against.
        """
        rows = states.index_select(0, owner)  # [E, d]
        weights = self.weights[level].index_select(0, child)  # [E, d]
        logits = (rows.to(_wide(rows)) * weights.to(_wide(weights))).sum(1)
        return logits + self.biases[level][child]

    def grid_logits(self, level: int, states: Tensor, child: Tensor) -> Tensor:
        """The same for C nodes a state: ``states`` [B, S, d], ``child`` [B, S, C] -> [B, S, C]."""
        weights = self.weights[level][child].to(states.dtype)  # [B, S, C, d]
        logits = (weights @ states.unsqueeze(-1)).squeeze(-1)
        return logits.to(_wide(logits)) + self.biases[level][child]


def mean_below(trie: Trie, level: int, items: Tensor) -> Tensor:
    """Mean of the rows of ``items`` [n_items, d] over the items below each node: [n_l, d]."""
    first = trie.item_ptr(level)[:-1]
    return F.embedding_bag(trie.leaf_items, items, first, mode="mean")


def root_log_probs(head: NodeHead, states: Tensor) -> Tensor:
    """Log-probabilities of the first-level nodes: ``states`` [n, d] -> [n, n_0]."""
    return head.root_logits(states).log_softmax(1)


def child_log_probs(
    head: NodeHead, level: int, states: Tensor, owner: Tensor, child: Tensor
) -> Tensor:
    """Log-probabilities [E] of nodes given their parents.

    ``states`` [g, d], one row a parent; ``owner`` and ``child`` int64 [E] list all children of
    every parent, as :func:`ragged.expand` does.
    """
    logits = head.child_logits(level, states, owner, child)
    return logits - ragged.group_logsumexp(logits, owner, len(states))[owner]


def _wide(values: Tensor) -> torch.dtype:
    return torch.promote_types(values.dtype, torch.float32)
