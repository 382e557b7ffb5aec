"""Scores of whole items, spread over the trie.

Many items share codes, and codes cannot tell these items apart. The item head scores every item
that exists from the encoder's last state h:

    score(i) = h . (e_i + W f_i) + r

with the item embedding e_i that the encoder reads, the item's features f_i (without any, its
phase-one vector) and, if the item is in the history, a learned logit r that depends on how long
ago. At inference items close to those of the history gain
(:mod:`~recbole_bbqrec.generator.items.neighbour_bonus`).
The mass of a trie node is the log-sum-exp of the scores of the items below it, and the logit of a
token is the sum of its codes' logits plus the mass of its node:

    log P(v | parent) = codes(v) + mass(v) - log-sum-exp over the siblings of v

If the codes' logits were zero, these would multiply to the softmax of the scores over all items.
So masses look ahead to the items below a token, and the decoder corrects them level by level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_bbqrec.generator.batch.encoded_history import Memory
from recbole_bbqrec.generator.items import ragged
from recbole_bbqrec.generator.items.catalogue import Catalogue
from recbole_bbqrec.generator.items.neighbour_bonus import Bonus
from recbole_bbqrec.generator.items.trie import Trie

_AT_ONCE = 2048  # items listed on a CPU: their keys stay in its cache


@dataclass(frozen=True)
class ItemScores:
    """The item head of n histories. Items are numbered by their place in ``trie.leaf_items``.

    * ``keys``: [I, d], e_i + W f_i; ``states``: [n, d], h.
    * ``seen``: int64 [n, T], the items of a history, -1 for none; ``repeat``: [n, T], their r.
    * ``bonus``: added by neighbours; None in training.
    * ``held``: int64 [K], ascending: the items whose keys [K, d] ``keys`` are; None: of all. With a
      part of them only :meth:`masses` of nodes above these is known.
    """

    trie: Trie
    keys: Tensor
    states: Tensor
    seen: Tensor
    repeat: Tensor
    bonus: Bonus | None = None
    held: Tensor | None = None

    @classmethod
    def of(
        cls,
        trie: Trie,
        keys: Tensor,
        states: Tensor,
        repeat_logits: Tensor,
        items: Tensor,
        last: Tensor,
        held: Tensor | None = None,
    ) -> ItemScores:
        """Score after the item in column ``last`` int64 [n] of histories ``items`` int64 [n, T].

        ``repeat_logits`` [max_history]: r by how many items ago, the last one's first.
        """
        ago = last.unsqueeze(1) - torch.arange(items.shape[1], device=items.device)  # [n, T]
        seen = trie.item_places[items].masked_fill(ago < 0, -1)
        return cls(trie, keys, states, seen, repeat_logits[ago.clamp(min=0)], held=held)

    @classmethod
    def at_end(
        cls, catalogue: Catalogue, keys: Tensor, repeat_logits: Tensor, memory: Memory
    ) -> ItemScores:
        """Score after each history of ``memory``, at inference, in the dtype of ``keys``."""
        trie, items, lengths = catalogue.trie, memory.items, memory.lengths
        states = memory.last()[:, -1].to(keys.dtype)  # [B, d]
        scores = cls.of(trie, keys, states, repeat_logits, items, lengths - 1)
        near = catalogue.placed_neighbours
        if near is None:
            return scores
        bonus = near.bonus(catalogue.n_items, items, lengths, scores.dtype)
        return replace(scores, bonus=bonus)

    def take(self, rows: Tensor | slice) -> ItemScores:
        """Restrict to the histories ``rows``."""
        states, seen, repeat = (part[rows] for part in (self.states, self.seen, self.repeat))
        bonus = None if self.bonus is None else self.bonus.take(rows)
        return replace(self, states=states, seen=seen, repeat=repeat, bonus=bonus)

    def with_tensors(
        self, seen: Tensor, keys: Tensor, states: Tensor, repeat: Tensor
    ) -> ItemScores:
        """Return scores of the same items with these tensors, such as those of some histories."""
        return replace(self, seen=seen, keys=keys, states=states, repeat=repeat)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of scores and masses: at least float32."""
        return torch.promote_types(self.states.dtype, torch.float32)

    def seen_cells(self) -> tuple[Tensor, Tensor]:
        """Return where the histories' items are among [I, n] scores: int64 [n, T], [n, 1].

        A place of ``seen`` without an item points to the first one.
        """
        row = torch.arange(len(self.seen), device=self.seen.device).unsqueeze(1)
        return self.seen.clamp(min=0), row

    def every(self) -> Tensor:
        """Score all items, without gradients: [I, n], histories along the contiguous axis."""
        scores = (self.keys @ self.states.t()).to(self.dtype)
        repeat = torch.where(self.seen >= 0, self.repeat, 0).to(self.dtype)
        scores.index_put_(self.seen_cells(), repeat, accumulate=True)
        return scores if self.bonus is None else self.bonus.add_to(scores)

    def root_masses(self) -> Tensor:
        """Compute the masses of all first-level nodes, without gradients: [n_0, n]."""
        return root_masses(self.trie, self.every())

    def masses(self, level: int, rows: Tensor, nodes: Tensor, below: int | None = None) -> Tensor:
        """Compute masses [E] of ``nodes`` of a level for histories ``rows``, both int64 [E].

        Without ``below``, the number of items below all these nodes, a device is asked for it.
        """
        pointer = self.trie.item_ptr(level)
        first, counts = pointer[nodes], pointer[nodes + 1] - pointer[nodes]
        below = int(counts.sum()) if below is None else below
        if below == len(nodes):  # one item each
            return self.listed(rows, first)
        owner, place = ragged.expand(first, counts, below)  # [E']
        scores = self.listed(rows[owner], place)
        return ragged.group_logsumexp(scores, owner, len(nodes))

    def listed(self, rows: Tensor, places: Tensor) -> Tensor:
        """Score the items at ``places`` for the histories ``rows``: int64 [E], int64 [E] -> [E]."""
        if torch.is_grad_enabled() or rows.is_cuda or len(rows) <= _AT_ONCE:
            return self._listed(rows, places)
        parts = zip(rows.split(_AT_ONCE), places.split(_AT_ONCE))
        return torch.cat([self._listed(*part) for part in parts])

    def _listed(self, rows: Tensor, places: Tensor) -> Tensor:
        wide = self.dtype
        index = places if self.held is None else torch.searchsorted(self.held, places)
        keys = self.keys.index_select(0, index).to(wide)  # [E, d]
        scores = (keys * self.states.index_select(0, rows).to(wide)).sum(1)
        same = self.seen.index_select(0, rows) == places.unsqueeze(1)  # [E, T]
        scores = scores + (self.repeat.index_select(0, rows).to(wide) * same).sum(1)
        if self.bonus is None:
            return scores
        return scores + self.bonus.at(rows, places, len(self.keys))


def masses_of_roots(items: ItemScores, nodes: Tensor, counts: Tensor) -> Tensor:
    """Compute the masses of many first-level nodes of each history: int64 [E], int64 [n] -> [E].

    The first ``counts[0]`` of ``nodes`` are of the first history, and so on, each history's in
    ascending order and once. Without gradients. Equals :meth:`ItemScores.masses` but for rounding:
    all items of a history are one product with its state, which is read once.
    """
    pointer, device, total = items.trie.item_ptr(0), nodes.device, len(items.keys)
    first = pointer[nodes]
    owner, place = ragged.expand(first, pointer[nodes + 1] - first)  # [E'], ascending by history
    row = torch.repeat_interleave(torch.arange(len(counts), device=device), counts)
    key = row.mul_(len(items.keys))[owner].add_(place)  # [E'], ascending
    ends = torch.searchsorted(
        key, torch.arange(1, len(counts) + 1, device=device) * len(items.keys)
    )
    states = items.states.to(items.dtype)
    sizes = ends.diff(prepend=ends.new_zeros(1)).tolist()
    scores = torch.cat(
        [
            items.keys.index_select(0, part).to(items.dtype) @ state
            for part, state in zip(place.split(sizes), states)
        ]
    )
    history, column = (items.seen >= 0).nonzero().unbind(1)
    extra = [(history, items.seen[history, column], items.repeat[history, column])]
    if items.bonus is not None:
        history, at = items.bonus.cells()
        extra.append((history, at, items.bonus.at(history, at, total)))
    for history, at, value in extra:
        asked = history * total + at
        entry = torch.searchsorted(key, asked).clamp(max=len(key) - 1)
        value = torch.where(key[entry] == asked, value.to(scores.dtype), 0)
        scores.index_add_(0, entry, value)
    return ragged.group_logsumexp(scores, owner, len(nodes))


def root_masses(trie: Trie, scores: Tensor) -> Tensor:
    """Compute the masses of all first-level nodes from :meth:`ItemScores.every`: [n_0, n].

    ``scores`` [I, n] are overwritten.
    """
    low, peak = scores.amin(0), scores.amax(0)  # [n]; aminmax() takes ten times as long
    tiny = torch.finfo(scores.dtype).tiny
    # Bonuses have no bound: where exp(low - peak) is zero, a node needs a peak of its own.
    apart = (peak - low > -math.log(tiny)).nonzero().squeeze(1)  # [a]
    kept = scores[:, apart]  # [I, a]
    total = sum_below_roots(trie, scores.sub_(peak).exp_())
    masses = total.clamp_(min=tiny).log_().add_(peak)
    if len(apart):
        masses[:, apart] = _logsumexp_below_roots(trie, kept)
    return masses


def _logsumexp_below_roots(trie: Trie, scores: Tensor) -> Tensor:
    """Compute the log-sum-exp over the items below each first-level node: [I, n] -> [n_0, n]."""
    roots = trie.item_nodes[trie.leaf_items, 0]  # [I]
    below = roots.unsqueeze(1).expand_as(scores)
    peak = scores.new_full((len(trie.item_ptr(0)) - 1, scores.shape[1]), -torch.inf)
    peak.scatter_reduce_(0, below, scores, "amax")
    return sum_below_roots(trie, (scores - peak[roots]).exp_()).log_().add_(peak)


def sum_below_roots(trie: Trie, values: Tensor) -> Tensor:
    """Sum over the items below each first-level node: [I, n] -> [n_0, n]."""
    return F.embedding_bag(trie.every_place, values, trie.item_ptr(0)[:-1], mode="sum")


def product_dtype(states: Tensor) -> torch.dtype:
    """Return the dtype that autocast would multiply in."""
    kind = states.device.type
    if states.dtype == torch.float32 and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return states.dtype
