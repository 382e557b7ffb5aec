"""Training losses: cross-entropy over codes, or over the items that exist."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_bbqrec.generator.normaliser import child_normaliser, root_normaliser
from recbole_bbqrec.generator.trie import Trie

Loss = tuple[Tensor, dict[str, Tensor]]


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


def item_loss(logits: Sequence[Tensor], trie: Trie, codes: Tensor, items: Tensor) -> Loss:
    """Minus log-probability of the target among the items that exist, averaged over targets.

    Each level is normalised over the children, in the trie, of the target's parent; a child's
    logit is the sum of its codes' logits. Items that share a leaf share its probability equally,
    so the probabilities of all items add up to one. That last (constant) term belongs to the
    last level.

    ``logits``: L tensors [n, M * N]; ``codes``: int64 [n, L, M]; ``items``: int64 [n]. Raises
    ValueError when a target is not in the trie.
    """
    nodes = trie.item_nodes[items]  # [n, L]
    if bool((nodes < 0).any()):
        absent = int(items[nodes[:, 0] < 0][0])
        raise ValueError(f"item {absent} is a target but not in the trie")
    offsets = torch.arange(trie.n_signals, device=codes.device) * trie.codebook_size
    terms = []
    for level, level_logits in enumerate(logits):
        columns = codes[:, level] + offsets  # [n, M]
        if level == 0:
            gain = level_logits.gather(1, columns).sum(1) - root_normaliser(level_logits, trie)
            terms.append(-gain.mean())
            continue
        parents = nodes[:, level - 1]
        # An only child has probability one whatever the logits: nothing to compute.
        open_ = (trie.children(level, parents)[1] > 1).nonzero().squeeze(1)  # [o]
        chosen = level_logits.index_select(0, open_)  # [o, M * N]
        gain = chosen.gather(1, columns[open_]).sum(1)
        gain = gain - child_normaliser(chosen, trie, level, parents[open_])
        terms.append(-gain.sum() / len(items))
    leaf_sizes = trie.leaf_ptr.diff()[nodes[:, -1]]
    terms[-1] = terms[-1] + leaf_sizes.to(terms[-1].dtype).log().mean()
    return _total(terms)


def _total(terms: list[Tensor]) -> Loss:
    named = {f"level_{level + 1}": term.detach() for level, term in enumerate(terms)}
    return torch.stack(terms).sum(), named
