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

from recbole_bbqrec.generator.head.item_scores import ItemScores
from recbole_bbqrec.generator.inference.allowed import Allowed
from recbole_bbqrec.generator.items import ragged
from recbole_bbqrec.generator.items.trie import Trie
from recbole_bbqrec.nn.topk import best_of_columns

_ROOT_ROWS = 64  # rows of logits scored together, so that a block's gathers stay in the cache


def code_log_probs(logits: Tensor, n_signals: int) -> Tensor:
    """Take the log-softmax over each signal's codes: [..., M * N] -> [..., M * N]."""
    scores: Tensor = logits.unflatten(-1, (n_signals, -1)).log_softmax(-1).flatten(-2)
    return scores


def root_scores(logits: Tensor, trie: Trie, loss: str) -> Tensor:
    """Return log-probabilities of all first-level nodes: ``logits`` [b, M * N] -> [b, n_0]."""
    if loss == "code":
        logits = code_log_probs(logits, trie.n_signals)
    scores = _summed(trie.root_columns, _rows_contiguous(logits.t())).t().contiguous()
    return scores.log_softmax(1) if loss == "item" else scores


def root_top(
    logits: Tensor,
    trie: Trie,
    loss: str,
    width: int,
    block: int,
    allowed: Allowed | None = None,
) -> tuple[Tensor, Tensor]:
    """Find the best ``width`` first-level nodes: log-probabilities and nodes, [b, W], unordered.

    W is at most n_0. About ``block`` scores are held at a time. Beyond the first nodes of a large
    catalogue, only those that beat a row's W best so far are looked at again, so that the cost is
    that of adding up the scores. A leaf's share of its probability is included where the trie
    has a single level. Nodes that ``allowed`` closes have -inf.
    """
    if loss == "code":
        logits = code_log_probs(logits, trie.n_signals)
    n_nodes = len(trie.root_columns)
    rows = max(_ROOT_ROWS, block // n_nodes)
    parts = []
    for start in range(0, len(logits), rows):
        users = slice(start, min(start + rows, len(logits)))
        nodes = max(width, block // rows)
        parts.append(_root_top_of_rows(logits[users].t(), trie, loss, width, nodes, allowed, users))
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def _root_top_of_rows(
    logits: Tensor,
    trie: Trie,
    loss: str,
    width: int,
    block: int,
    allowed: Allowed | None,
    users: slice,
) -> tuple[Tensor, Tensor]:
    """Do :func:`root_top` for ``logits`` [M * N, b] of ``users``, ``block`` nodes at a time."""
    logits = _rows_contiguous(logits)
    normaliser = logits.new_full(logits.shape[1:], -torch.inf)  # [b]
    best, nodes = logits.new_empty(0), torch.empty(0)
    for first in range(0, len(trie.root_columns), block):
        scores = _summed(trie.root_columns[first : first + block], logits)  # [n, b]
        if loss == "item":
            normaliser = torch.logaddexp(normaliser, scores.logsumexp(0))
            if trie.levels == 1:
                leaves = torch.arange(first, first + len(scores), device=scores.device)
                scores += leaf_share(trie, leaves, scores.dtype)[:, None]
        if allowed is not None:
            scores = allowed.close_roots(scores, first, users)
        if first == 0:
            best, nodes = best_of_columns(scores, min(width, len(scores)))
        else:
            best, nodes = _merge(best, nodes, scores, first)
    if loss == "item":
        best = best - normaliser[:, None]
    return best, nodes


def _merge(best: Tensor, nodes: Tensor, scores: Tensor, first: int) -> tuple[Tensor, Tensor]:
    """Let ``scores`` [n, b] of the nodes from ``first`` on compete with ``best`` [b, W]."""
    node, row = (scores > best.amin(1)).nonzero().unbind(1)  # [E]
    if len(node) == 0:
        return best, nodes
    row, order = row.sort(stable=True)
    node = node[order]
    counts = torch.bincount(row, minlength=len(best))
    place = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
    grid = best.new_full((len(best), int(counts.max())), -torch.inf)
    places = nodes.new_zeros(grid.shape)
    grid[row, place], places[row, place] = scores[node, row], node + first
    grid, places = torch.cat([best, grid], dim=1), torch.cat([nodes, places], dim=1)
    best, chosen = grid.topk(best.shape[1], 1, sorted=False)
    return best, places.gather(1, chosen)


def _summed(columns: Tensor, table: Tensor) -> Tensor:
    """Sum the rows ``columns`` int64 [n, M] of ``table`` [M * N, b]: [n, b].

    Batch rows run along the contiguous axis, so that sums over codes become sums of whole rows.
    """
    return F.embedding_bag(columns, table, mode="sum")


def _rows_contiguous(table: Tensor) -> Tensor:
    """Copy with unit stride within rows, as fast sums need.

    ``contiguous()`` would keep a single column's stride: a dimension of size 1 counts as
    contiguous whatever its stride is.
    """
    return torch.empty(table.shape, dtype=table.dtype, device=table.device).copy_(table)


def headed_root_scores(logits: Tensor, items: ItemScores) -> Tensor:
    """Do :func:`root_scores` with an item head, by node: ``logits`` [b, M * N] -> [n_0, b]."""
    masses = items.root_masses()
    codes = _summed(items.trie.root_columns, _rows_contiguous(logits.t()))  # [n_0, b]
    scores = masses.add_(codes)
    return scores.sub_(scores.logsumexp(0))


def child_scores(
    logits: Tensor,
    trie: Trie,
    level: int,
    owner: Tensor,
    child: Tensor,
    loss: str,
    masses: Tensor | None = None,
) -> Tensor:
    """Return log-probabilities of listed children given their parents, in ``level`` >= 1.

    ``logits`` [g, M * N], one row a parent; ``owner`` and ``child`` int64 [E] as
    :func:`ragged.expand` lists them; ``masses`` [E]: what an item head adds to each -> [E].
    """
    if loss == "code":
        logits = code_log_probs(logits, trie.n_signals)
    cells = trie.columns(level, child) + (owner * logits.shape[1])[:, None]  # [E, M]
    scores = logits.flatten()[cells].sum(1)  # [E]
    if masses is not None:
        scores = scores + masses
    if loss == "item":
        scores = scores - ragged.group_logsumexp(scores, owner, len(logits))[owner]
    return scores


def leaf_share(trie: Trie, leaves: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the log of an item's equal share in its leaf: ``leaves`` int64 of any shape."""
    return -(trie.leaf_ptr[leaves + 1] - trie.leaf_ptr[leaves]).to(dtype).log()
