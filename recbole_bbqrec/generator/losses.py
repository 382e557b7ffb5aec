"""Training losses: cross-entropy over codes, or over the items that exist."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from recbole_bbqrec.generator import ragged
from recbole_bbqrec.generator.choices import Choices
from recbole_bbqrec.generator.node_head import NodeWeights, Table, listed_log_probs
from recbole_bbqrec.generator.normaliser import child_normaliser, root_normaliser
from recbole_bbqrec.generator.root_loss import root_loss
from recbole_bbqrec.generator.trie import Trie

Loss = tuple[Tensor, dict[str, Tensor]]

_CHILD_WEIGHTS = 1 << 24  # numbers in gathered weights held at a time


def code_loss(logits: Sequence[Tensor], codes: Tensor, label_smoothing: float = 0.0) -> Loss:
    """Cross-entropy of every code, summed over levels and signals, averaged over targets.

    ``logits``: L tensors [n, M * N]; ``codes``: int64 [n, L, M]. Minus log P of Eq. 1 when a
    token's codes are independent given its prefix (without label smoothing).
    """
    n, _, n_signals = codes.shape
    terms = [
        F.cross_entropy(
            level_logits.view(n * n_signals, -1),
            codes[:, level].flatten(),
            reduction="sum",
            label_smoothing=label_smoothing,
        )
        / n
        for level, level_logits in enumerate(logits)
    ]
    return _total(terms)


def item_loss(logits: Sequence[Tensor], trie: Trie, codes: Tensor, paths: Choices) -> Loss:
    """Minus log-probability of the target among the items that exist, averaged over targets.

    Each level is normalised over the children, in the trie, of the target's parent; a child's
    logit is the sum of its codes' logits. Items that share a leaf share its probability equally,
    so the probabilities of all items add up to one. That last (constant) term belongs to the
    last level.

    ``logits``: L tensors [o_l, M * N], of the targets that have a choice at a level; ``codes``:
    int64 [n, L, M], of all n targets.
    """
    offsets = torch.arange(trie.n_signals, device=codes.device) * trie.codebook_size
    terms = []
    for level, (level_logits, which) in enumerate(zip(logits, paths.open)):
        columns = codes[which, level] + offsets  # [o, M]
        gain = level_logits.gather(1, columns).sum(1)
        if level == 0:
            gain = gain - root_normaliser(level_logits, trie)
        else:
            parents = paths.nodes[which, level - 1]
            gain = gain - child_normaliser(level_logits, trie, level, parents)
        terms.append(-gain.sum() / len(codes))
    terms[-1] = terms[-1] + _leaf_term(trie, paths, terms[-1].dtype)
    return _total(terms)


def node_loss(weights: NodeWeights, states: Sequence[Tensor], paths: Choices) -> Loss:
    """:func:`item_loss` where the children's logits come from an item head.

    ``states``: L tensors [o_l, d], the decoder's, of the targets that have a choice at a level.
    Memory is bounded: large catalogues are scored in parts.
    """
    nodes, trie = paths.nodes, weights.catalogue.trie
    families = [
        Families.of(trie, level, nodes[which]) for level, which in enumerate(paths.open) if level
    ]
    tables = weights.tables([family.children for family in families])
    parts = [root_loss(*tables[0], states[0], nodes[:, 0])]
    parts += [
        _child_loss(table, state, family)
        for table, state, family in zip(tables[1:], states[1:], families)
    ]
    terms = [part / len(nodes) for part in parts]
    terms[-1] = terms[-1] + _leaf_term(trie, paths, terms[-1].dtype)
    return _total(terms)


class Families(NamedTuple):
    """The children, in a level, of o targets' parents; parents that are alike share theirs.

    * ``children``: int64 [k], nodes of the level, parent after parent.
    * ``first``, ``counts``: int64 [o], the rows of ``children`` that are a target's candidates.
    * ``place``: int64 [o], the target's own row.
    """

    children: Tensor
    first: Tensor
    counts: Tensor
    place: Tensor

    @classmethod
    def of(cls, trie: Trie, level: int, nodes: Tensor) -> Families:
        """Of targets whose paths are ``nodes`` int64 [o, L]; ``level`` >= 1."""
        unique, which = torch.unique(nodes[:, level - 1], return_inverse=True)  # [u], [o]
        child, counts = trie.children(level, unique)  # [u]
        first = (counts.cumsum(0) - counts)[which]  # [o]
        place = first + nodes[:, level] - child[which]
        return cls(ragged.expand(child, counts)[1], first, counts[which], place)


def _child_loss(table: Table, states: Tensor, family: Families) -> Tensor:
    """Sum of -log P(target | its parent): ``table`` of all children, ``states`` [o, d]."""
    _, first, counts, place = family
    if len(place) == 0:
        return table[1].new_zeros(())

    def part(states: Tensor, first: Tensor, counts: Tensor, place: Tensor) -> Tensor:
        owner, row = ragged.expand(first, counts)  # [E]
        scores = listed_log_probs(*table, states, owner, row)
        return -scores[counts.cumsum(0) - counts + place - first].sum()

    runs = ragged.chunks(counts, max(1, _CHILD_WEIGHTS // states.shape[1]))
    parts = [
        _in_parts(len(runs) > 1, part, states[run], first[run], counts[run], place[run])
        for run in runs
    ]
    return torch.stack(parts).sum()


def _in_parts(several: bool, function: Callable[..., Tensor], *arguments: Tensor) -> Tensor:
    """Call ``function``; one part of several is computed again in the backward pass."""
    if not several:
        return function(*arguments)
    value: Tensor = checkpoint(function, *arguments, use_reentrant=False)
    return value


def _leaf_term(trie: Trie, paths: Choices, dtype: torch.dtype) -> Tensor:
    """Minus log of an item's share of its leaf, averaged over the targets."""
    return trie.leaf_ptr.diff()[paths.nodes[:, -1]].to(dtype).log().mean()


def _total(terms: list[Tensor]) -> Loss:
    named = {f"level_{level + 1}": term.detach() for level, term in enumerate(terms)}
    return torch.stack(terms).sum(), named
