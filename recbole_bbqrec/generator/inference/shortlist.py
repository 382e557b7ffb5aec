"""The best first-level nodes with an item head, without the scores of all items.

First-level nodes whose tokens begin with the same codes make a group: by all codes, or by fewer
where there are nearly as many nodes as items. The mass of a group is estimated as if keys were
normally spread: with mean m and variance v per dimension it is log(count) + h . m + v |h|^2 / 2,
whatever h, one product with a row a group in place of one an item. The logits of the codes that
are not shared enter as the logarithm of their mean probability.

The most promising groups by this estimate, and by the exact scores of items that a user has a
repeat logit or a bonus for, are then scored item by item. A group that the estimate leaves out is
lost to the beam, so that this is an approximation: groups of like items, as trained semantic IDs
make them, are estimated well; random ones are not.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_bbqrec.generator.head.item_scores import ItemScores, masses_of_roots
from recbole_bbqrec.generator.items import ragged
from recbole_bbqrec.generator.items.trie import Trie
from recbole_bbqrec.nn.topk import best_of_columns, best_of_rows

GROUPS_PER_BEAM = 5  # that are scored item by item, for each beam
_ITEMS = 20  # of such a group, on average: when larger ones have used them up, fewer groups suffice
_LEAST_SAVING = 10  # all items over those that a user's list has: with less, the list saves no time
_LEAST_ITEMS = 2  # of a group, on average: with fewer the estimates cost as much as the items
_USERS = 32  # of a block


class NodeGroups(NamedTuple):
    """Groups of first-level nodes, which are consecutive, and estimates of their masses.

    * ``keys``: [G, d + 2], the mean of the keys below, v / 2 and log(count), for h, |h|^2 and 1.
    * ``first``: int64 [G + 1]; group g has the nodes ``first[g] .. first[g + 1] - 1``;
      ``of_node``: int64 [n_0], the group of each.
    * ``shared``: int64 [G, S], the columns of the codes that a group's tokens share; ``own``: int64
      [M - S, I], those of each item's other codes, by leaf, of which ``items`` int64 [G] says where
      a group begins.
    * ``sizes``: int64 [G], items; ``n_exact``: groups of a user that are scored item by item.
    """

    keys: Tensor
    first: Tensor
    of_node: Tensor
    shared: Tensor
    own: Tensor
    items: Tensor
    sizes: Tensor
    n_exact: int


def node_groups(trie: Trie, keys: Tensor, ranking: str, num_beams: int) -> NodeGroups | None:
    """Group the first-level nodes and summarise ``keys`` [I, d] of the trie's items.

    ``ranking``: exact | shortlist. Returns None where all items are to be scored: with "exact", and
    where the list would hold more than a tenth of the items.
    """
    n_exact, n_items = GROUPS_PER_BEAM * num_beams, len(trie.leaf_items)
    if ranking == "exact" or trie.levels == 1:
        return None
    for n_shared in range(trie.n_signals, 0, -1):
        columns = trie.root_columns[:, :n_shared]
        shared, of_node, sizes = torch.unique_consecutive(
            columns, dim=0, return_inverse=True, return_counts=True
        )
        if len(shared) * _LEAST_ITEMS <= n_items:
            break
    size = n_items / len(shared)
    listed = max(num_beams * size, n_exact * min(size, _ITEMS))  # about
    if listed * _LEAST_SAVING > n_items:
        return None
    first = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    pointer = trie.item_ptr(0)[first]
    n_below = pointer.diff()  # [G]
    counts = n_below.to(keys.dtype).unsqueeze(1)

    def mean_of(values: Tensor) -> Tensor:
        return F.embedding_bag(trie.every_place, values, pointer[:-1], mode="sum") / counts

    mean = mean_of(keys)  # [G, d]
    squares = mean_of(keys.pow(2).mean(1, keepdim=True))
    spread = (squares - mean.pow(2).mean(1, keepdim=True)).clamp_(min=0)
    own = trie.root_columns[trie.item_nodes[trie.leaf_items, 0], n_shared:].t().contiguous()
    rows = torch.cat([mean, spread / 2, counts.log()], dim=1)
    return NodeGroups(rows, first, of_node, shared, own, pointer[:-1], n_below, n_exact)


def root_top(
    items: ItemScores, groups: NodeGroups, logits: Tensor, width: int
) -> tuple[Tensor, Tensor]:
    """Find the best ``width`` children of the root: ``logits`` [B, M * N] -> two [B, W].

    Returns log-probabilities, whose normaliser is estimated for the groups left out, and nodes.
    """
    parts = []
    for users in torch.arange(len(logits), device=logits.device).split(_USERS):
        parts.append(_top_of(items.take(users), groups, logits[users], width))
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def _top_of(
    items: ItemScores, groups: NodeGroups, logits: Tensor, width: int
) -> tuple[Tensor, Tensor]:
    estimate = _estimates(items, groups, logits)  # [G, b]
    best, chosen = best_of_columns(estimate, groups.n_exact)  # [b, P]
    best, order = best.sort(1, descending=True)
    chosen = chosen.gather(1, order)
    sizes = groups.sizes[chosen]
    kept = sizes.cumsum(1) - sizes < _ITEMS * groups.n_exact
    kept[:, :width] = True  # a node for each beam at least
    chosen, order = chosen.sort(1)
    best, kept = best.gather(1, order), kept.gather(1, order)
    first = groups.first[chosen].flatten()
    counts = (groups.first[chosen + 1].flatten() - first) * kept.flatten()
    owner, node = ragged.expand(first, counts)  # [E]
    row = owner // groups.n_exact
    counts = torch.bincount(row, minlength=len(logits))
    scores = masses_of_roots(items, node, counts) + _codes(items.trie, logits, row, node)
    exact = ragged.group_logsumexp(scores, owner, chosen.numel()).view(chosen.shape)
    exact = torch.where(kept, exact, best)
    total = estimate.scatter_(0, chosen.t(), exact.t()).logsumexp(0)  # [b]
    start = counts.cumsum(0) - counts
    place = torch.arange(len(row), device=row.device) - start[row]
    grid = scores.new_full((len(logits), int(counts.max())), -torch.inf)
    grid[row, place] = scores
    top, at = best_of_rows(grid, min(width, int(counts.min())))
    return top - total.unsqueeze(1), node[at + start.unsqueeze(1)]


def _estimates(items: ItemScores, groups: NodeGroups, logits: Tensor) -> Tensor:
    """Estimate the logits of the groups: [G, b]."""
    states = items.states.to(items.dtype)
    one = states.new_ones(len(states), 1)
    known = torch.cat([states, states.pow(2).sum(1, keepdim=True), one], dim=1)  # [b, d + 2]
    estimate = groups.keys.to(items.dtype) @ known.t()
    table = torch.empty(logits.shape[::-1], dtype=logits.dtype, device=logits.device)
    table.copy_(logits.t())
    estimate += F.embedding_bag(groups.shared, table, mode="sum")
    if len(groups.own):
        peak = table.amax(0)  # [b]
        table.sub_(peak).exp_()
        tiny = torch.finfo(table.dtype).tiny
        for columns in groups.own:
            mean = F.embedding_bag(columns, table, groups.items, mode="mean")
            estimate += mean.clamp_(min=tiny).log_().add_(peak)
    row, column = (items.seen >= 0).nonzero().unbind(1)
    places = items.seen[row, column]
    if items.bonus is not None:
        more_rows, more_places = items.bonus.cells()
        places, row = torch.cat([places, more_places]), torch.cat([row, more_rows])
    node = items.trie.item_nodes[items.trie.leaf_items[places], 0]
    scores = items.listed(row, places) + _codes(items.trie, logits, row, node)
    cell = groups.of_node[node] * estimate.shape[1] + row
    estimate.view(-1).scatter_reduce_(0, cell, scores.to(estimate.dtype), "amax")
    return estimate


def _codes(trie: Trie, logits: Tensor, row: Tensor, node: Tensor) -> Tensor:
    """Add up the logits [b, M * N] of the codes of first-level nodes: int64 [E] twice -> [E]."""
    cells = trie.root_columns[node] + (row * logits.shape[1]).unsqueeze(1)
    return logits.flatten()[cells].sum(1)
