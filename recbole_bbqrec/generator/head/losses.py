"""Training losses: cross-entropy over codes, or over the items that exist."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_bbqrec.generator.batch.trie_paths import Choices, Run, runs_at
from recbole_bbqrec.generator.head import normaliser, parts
from recbole_bbqrec.generator.head.head_loss import root_loss
from recbole_bbqrec.generator.head.item_scores import ItemScores
from recbole_bbqrec.generator.head.sampled_head import ItemSample, sampled_root_loss
from recbole_bbqrec.generator.items import ragged
from recbole_bbqrec.generator.items.trie import Trie

Loss = tuple[Tensor, dict[str, Tensor]]


def code_loss(logits: Sequence[Tensor], codes: Tensor, label_smoothing: float = 0.0) -> Loss:
    """Sum the cross-entropy of codes over levels and signals, and average it over targets.

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


def item_loss(
    logits: Sequence[Tensor],
    trie: Trie,
    codes: Tensor,
    paths: Choices,
    runs: Sequence[Sequence[Run]],
    scores: ItemScores | None = None,
    sample: ItemSample | None = None,
) -> Loss:
    """Minus log-probability of the target among the items that exist, averaged over targets.

    Each level is normalised over the children, in the trie, of the target's parent; a child's
    logit is the sum of its codes' logits, plus its mass where there is an item head. Items that
    share a leaf share its probability equally, so the probabilities of all items add up to one.
    That last (constant) term belongs to the last level.

    ``logits``: L tensors [o_l, M * N], of the targets that have a choice at a level; ``codes``:
    int64 [n, L, M] and ``scores``, the item head, of all n targets; ``runs``: see
    :func:`child_runs`; with a ``sample`` its items stand for all at the first level. Memory is
    bounded: large catalogues are scored in parts.
    """
    offsets = torch.arange(trie.n_signals, device=codes.device) * trie.codebook_size
    terms = []
    for level, (level_logits, which) in enumerate(zip(logits, paths.open)):
        nodes = paths.nodes[which]  # [o, L]
        if scores is not None and level == 0 and sample is not None:
            total = sampled_root_loss(level_logits, scores, nodes[:, 0], sample)
        elif scores is not None and level == 0:
            total = root_loss(level_logits, scores, nodes[:, 0])
        elif scores is not None:
            held = scores.take(which)
            total = _child_loss(level_logits, held, level, nodes, runs[level - 1])
        else:
            columns = codes[which, level] + offsets  # [o, M]
            gain = level_logits.gather(1, columns).sum(1)
            if level == 0:
                gain = gain - normaliser.root_normaliser(level_logits, trie)
            else:
                gain = gain - normaliser.child_normaliser(
                    level_logits, trie, level, nodes[:, level - 1], runs[level - 1]
                )
            total = -gain.sum()
        terms.append(total / len(codes))
    terms[-1] = terms[-1] + _leaf_term(trie, paths, terms[-1].dtype)
    return _total(terms)


def child_runs(trie: Trie, paths: Choices, head_width: int = 0) -> tuple[list[Run], ...]:
    """Cut the targets of each level but the first into those that are scored together.

    ``head_width``: d of an item head's keys, 0 without one.
    """
    levels = range(1, trie.levels)
    if not head_width:
        return tuple(normaliser.child_runs(trie, paths, level) for level in levels)
    budget = max(1, parts.KEYS_AT_ONCE // head_width)
    return tuple(runs_at(trie, paths, level, budget, by_items=True) for level in levels)


def _child_loss(
    logits: Tensor, scores: ItemScores, level: int, nodes: Tensor, runs: Sequence[Run]
) -> Tensor:
    """Sum -log P(target | its parent) at ``level`` >= 1 with an item head.

    ``logits`` [o, M * N] and ``scores`` of o targets whose paths are ``nodes`` int64 [o, L].
    """
    trie = scores.trie

    def part(run: Run, logits: Tensor, nodes: Tensor, *tensors: Tensor) -> Tensor:
        held = scores.with_tensors(*tensors)
        first, counts = trie.children(level, nodes[:, level - 1])  # [b]
        owner, child = ragged.expand(first, counts, run.children)  # [E]
        columns = trie.columns(level, child) + (owner * logits.shape[1])[:, None]  # [E, M]
        codes = logits.flatten().index_select(0, columns.flatten()).view(columns.shape)
        total = codes.sum(1) + held.masses(level, owner, child, run.items)  # [E]
        own = total[counts.cumsum(0) - counts + nodes[:, level] - first]
        return (ragged.group_logsumexp(total, owner, len(first)) - own).sum()

    values = [
        parts.in_parts(
            len(runs) > 1, part, run, logits[run.part], nodes[run.part], scores.seen[run.part],
            scores.keys, scores.states[run.part], scores.repeat[run.part],
        )
        for run in runs
    ]  # fmt: skip
    return torch.stack(values).sum()


def _leaf_term(trie: Trie, paths: Choices, dtype: torch.dtype) -> Tensor:
    """Return minus log of an item's share of its leaf, averaged over the targets."""
    return trie.leaf_ptr.diff()[paths.nodes[:, -1]].to(dtype).log().mean()


def _total(terms: list[Tensor]) -> Loss:
    named = {f"level_{level + 1}": term.detach() for level, term in enumerate(terms)}
    return torch.stack(terms).sum(), named
