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


class NodeWeights(NamedTuple):
    """What the output weights of a trie's nodes are made of.

    * ``code_weights``: L tensors [M * N, d]; ``code_biases``: [L, M * N].
    * ``items``: [n_items, d], an item's own weights.
    """

    trie: Trie
    code_weights: list[Tensor]
    code_biases: Tensor
    items: Tensor

    def of(self, level: int, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Weights [k, d] and biases [k] of ``nodes`` int64 [k] of a level."""
        columns = self.trie.columns(level, nodes)  # [k, M]
        codes = F.embedding_bag(columns, self.code_weights[level], mode="sum")  # [k, d]
        own = mean_below(self.trie, level, nodes, self.items)
        return codes + own, self.code_biases[level][columns].sum(1)

    def head(self) -> NodeHead:
        """Of all nodes."""
        every = (torch.arange(len(codes), device=codes.device) for codes in self.trie.codes)
        weights, biases = zip(*(self.of(level, nodes) for level, nodes in enumerate(every)))
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


def mean_below(trie: Trie, level: int, nodes: Tensor, items: Tensor) -> Tensor:
    """Mean of the rows of ``items`` [n_items, d] over the items below each of k nodes: [k, d]."""
    pointer = trie.item_ptr(level)
    first, counts = pointer[nodes], pointer[nodes + 1] - pointer[nodes]
    _, place = ragged.expand(first, counts)
    return F.embedding_bag(trie.leaf_items[place], items, counts.cumsum(0) - counts, mode="mean")


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
