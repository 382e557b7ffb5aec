"""Items that may be recommended, as a mask over the trie's nodes.

A node is closed if no allowed item lies below it; the beam never enters it. Scores stay those of
the whole catalogue: closing nodes changes which items are listed, not their probabilities. Every
open node has an open child, so a beam of width W lists W items, or all allowed ones if they are
fewer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from recbole_bbqrec.generator.items.trie import Trie


@dataclass(frozen=True)
class Allowed:
    """The items allowed for all of B users, and what is excluded for each.

    * ``items``: bool [I], by place in ``trie.leaf_items``.
    * ``counts``: int64 [n_l] by level, the number of allowed items below each node.
    * ``excluded``: int64 [E], ``user * I + place``, ascending: items excluded for one user.
    * ``closed``: by level int64 [C_l], ``user * n_l + node``, ascending: nodes closed for a user.
    """

    trie: Trie
    items: Tensor
    counts: tuple[Tensor, ...]
    excluded: Tensor
    closed: tuple[Tensor, ...]

    @classmethod
    def of(cls, trie: Trie, items: Tensor | None = None) -> Allowed:
        """Allow ``items``, bool [n_items]; by default every item of the trie."""
        every = torch.ones(len(trie.leaf_items), dtype=torch.bool, device=trie.leaf_items.device)
        allowed = every if items is None else items.to(every.device)[trie.leaf_items]
        before = torch.cat([allowed.new_zeros(1, dtype=torch.int64), allowed.cumsum(0)])
        pointers = [before[trie.item_ptr(level)] for level in range(trie.levels)]
        none = before.new_empty(0)
        counts = tuple(pointer.diff() for pointer in pointers)
        return cls(trie, allowed, counts, none, (none,) * trie.levels)

    def without(self, items: Tensor) -> Allowed:
        """Exclude ``items`` int64 [B, S] for each of B users; 0 stands for none."""
        trie, width = self.trie, len(self.items)
        places = trie.item_places[items]  # [B, S]
        user, column = (places >= 0).nonzero().unbind(1)
        place = places[user, column]
        kept = self.items[place]
        keys = torch.unique(user[kept] * width + place[kept])
        user, item = keys // width, trie.leaf_items[keys % width]
        closed = []
        for level, counts in enumerate(self.counts):
            nodes = user * len(counts) + trie.item_nodes[item, level]
            nodes, excluded = torch.unique(nodes, return_counts=True)
            closed.append(nodes[excluded == counts[nodes % len(counts)]])
        return replace(self, excluded=keys, closed=tuple(closed))

    def close_roots(self, scores: Tensor, first: int, users: slice) -> Tensor:
        """Set closed nodes of ``scores`` [n, b] to -inf, in place.

        The rows are nodes of the first level from ``first`` on, the columns ``users``.
        """
        counts = self.counts[0]
        shut = (counts[first : first + len(scores)] == 0).nonzero().squeeze(1)
        scores.index_fill_(0, shut, -torch.inf)
        bounds = torch.tensor([users.start, users.stop], device=counts.device) * len(counts)
        low, high = torch.searchsorted(self.closed[0], bounds).tolist()
        keys = self.closed[0][low:high]
        node, user = keys % len(counts) - first, keys // len(counts) - users.start
        inside = (node >= 0) & (node < len(scores))
        scores[node[inside], user[inside]] = -torch.inf
        return scores

    def is_closed(self, level: int, users: Tensor, nodes: Tensor) -> Tensor:
        """Return True where a node is closed to a user: int64, int64 -> bool, of one shape."""
        counts = self.counts[level]
        return (counts[nodes] == 0) | _among(users * len(counts) + nodes, self.closed[level])

    def is_excluded(self, users: Tensor, places: Tensor) -> Tensor:
        """Return True where the item at a place is not allowed to a user, as :meth:`is_closed`."""
        return ~self.items[places] | _among(users * len(self.items) + places, self.excluded)


def _among(values: Tensor, sorted_keys: Tensor) -> Tensor:
    if len(sorted_keys) == 0:
        return torch.zeros_like(values, dtype=torch.bool)
    place = torch.searchsorted(sorted_keys, values).clamp_(max=len(sorted_keys) - 1)
    return sorted_keys[place] == values
