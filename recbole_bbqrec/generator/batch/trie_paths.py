"""Levels at which the path to a target leaves a choice.

A node that is an only child has probability one whatever the decoder says: it adds nothing to a
loss over the items that exist. With trained semantic IDs most paths are forced after two levels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from recbole_bbqrec.generator.items import ragged
from recbole_bbqrec.generator.items.trie import Trie


class Choices(NamedTuple):
    """The paths of n targets.

    * ``nodes``: int64 [n, L], the trie's nodes on each path.
    * ``open``: L tensors int64 [o_l], the targets that have siblings at a level, ascending; at the
      first level all of them.
    * ``depth``: int64 [n], in 1 .. L: the levels up to the last that is open.
    """

    nodes: Tensor
    open: tuple[Tensor, ...]
    depth: Tensor

    def rows(self, states: Tensor) -> list[Tensor]:
        """Return the decoder states of the open levels, L tensors [o_l, ...].

        ``states`` [R, ...], R being the sum of ``depth``: the first ``depth`` levels of each
        target, target by target.
        """
        first = self.depth.cumsum(0) - self.depth  # [n]
        return [states.index_select(0, first[which] + j) for j, which in enumerate(self.open)]


class Run(NamedTuple):
    """Targets whose parents' children are scored together, at one level.

    ``part``: which of the targets that are open there; ``children``: the number of all children of
    their parents, and ``items``: of all items below these.
    """

    part: slice
    children: int
    items: int


def runs_at(trie: Trie, paths: Choices, level: int, budget: int, by_items: bool) -> list[Run]:
    """Cut the targets open at ``level`` >= 1 into runs of about ``budget`` children or items."""
    parents = paths.nodes[paths.open[level], level - 1]  # [o]
    counts = trie.children(level, parents)[1]
    pointer = trie.item_ptr(level - 1)
    below = pointer[parents + 1] - pointer[parents]
    parts = ragged.chunks(below if by_items else counts, budget)
    return [Run(part, int(counts[part].sum()), int(below[part].sum())) for part in parts]


def choices(trie: Trie, items: Tensor) -> Choices:
    """Find the paths of the targets ``items`` int64 [n].

    Raises ValueError for an item not in the trie.

    >>> ids = torch.tensor([[0, 0], [0, 1], [0, 2], [1, 1]]).unsqueeze(2)  # row 0: [PAD]
    >>> paths = choices(Trie.build(ids, 3), torch.tensor([1, 3]))
    >>> paths.depth  # item 3 is an only child at the second level
    tensor([2, 1])
    >>> paths.open
    (tensor([0, 1]), tensor([0]))
    """
    nodes = trie.item_nodes[items]  # [n, L]
    if bool((nodes < 0).any()):
        absent = int(items[nodes[:, 0] < 0][0])
        raise ValueError(f"item {absent} is a target but not in the trie")
    depth = torch.ones_like(items)
    which = [torch.arange(len(items), device=items.device)]
    for level in range(1, trie.levels):
        several = trie.children(level, nodes[:, level - 1])[1] > 1  # [n]
        depth[several] = level + 1
        which.append(several.nonzero().squeeze(1))
    return Choices(nodes, tuple(which), depth)
