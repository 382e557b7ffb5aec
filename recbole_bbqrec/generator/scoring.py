"""Log-probabilities of trie nodes, shared by beam search and the exact scorer.

Scores follow the loss that trained the network: "code" adds log-softmaxes over the codes, not
renormalised over what exists; "item" normalises over the children that exist and divides a
leaf's probability equally among its items. All arithmetic is in the dtype of the logits, which
the network returns in float32 or wider.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_bbqrec.generator import ragged
from recbole_bbqrec.generator.trie import Trie


def code_log_probs(logits: Tensor, n_signals: int) -> Tensor:
    """Log-softmax over each signal's codes: [..., M * N] -> [..., M * N]."""
    return logits.unflatten(-1, (n_signals, -1)).log_softmax(-1).flatten(-2)


def root_scores(logits: Tensor, trie: Trie, loss: str) -> Tensor:
    """Log-probabilities of all first-level nodes: ``logits`` [b, M * N] -> [b, n_0]."""
    if loss == "code":
        logits = code_log_probs(logits, trie.n_signals)
    # Batch rows run along the contiguous axis: sums over codes become sums of whole rows.
    scores = F.embedding_bag(trie.columns(0), logits.t().contiguous(), mode="sum")  # [n_0, b]
    scores = scores.t().contiguous()
    return scores.log_softmax(1) if loss == "item" else scores


def child_scores(
    logits: Tensor, trie: Trie, level: int, owner: Tensor, child: Tensor, loss: str
) -> Tensor:
    """Log-probabilities of listed children given their parents, in ``level`` >= 1.

    ``logits`` [g, M * N], one row a parent; ``owner`` and ``child`` int64 [E] as
    :func:`ragged.expand` lists them -> [E].
    """
    if loss == "code":
        logits = code_log_probs(logits, trie.n_signals)
    cells = trie.columns(level)[child] + (owner * logits.shape[1])[:, None]  # [E, M]
    scores = logits.flatten()[cells].sum(1)  # [E]
    if loss == "item":
        scores = scores - ragged.group_logsumexp(scores, owner, len(logits))[owner]
    return scores


def leaf_share(trie: Trie, leaves: Tensor, dtype: torch.dtype) -> Tensor:
    """Log of an item's equal share in its leaf: ``leaves`` int64, any shape -> that shape."""
    return -(trie.leaf_ptr[leaves + 1] - trie.leaf_ptr[leaves]).to(dtype).log()
