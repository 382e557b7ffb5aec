"""Items that were chosen together: what item-based collaborative filtering ranks by.

A rare item has too few training events for its embedding to be learned well, but which items the
same users chose is known exactly. The item head may add to an item's score

    weight * sum over the items j of the history of  decay ** ago(j) * n(i, j) / sqrt(n(i) n(j))

with n(i) the users who chose i in training, n(i, j) those who chose both, and ago(j) how many items
ago j was chosen, 0 for the last. The sums are taken at inference alone: in training the next item
would count itself among the neighbours of its own history.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from recbole_bbqrec.generator import ragged
from recbole_bbqrec.generator.trie import Trie

_KEPT = 500  # neighbours of an item, the most similar ones
_BLOCK = 1024  # items whose cosines with all others are held at a time


@dataclass(frozen=True)
class Neighbours:
    """Cosines of items, by the users who chose them.

    * ``pointer``: int64 [n_items + 1]; item i owns the entries from ``pointer[i]`` on.
    * ``items``: int64 [N], its neighbours; ``cosines``: float32 [N].
    * ``weight``, ``decay``: of the sum above.
    """

    pointer: Tensor
    items: Tensor
    cosines: Tensor
    weight: float
    decay: float

    @classmethod
    def of_histories(
        cls, items: Tensor, offsets: Tensor, n_items: int, weight: float, decay: float
    ) -> Neighbours:
        """From training histories, user after user: ``items`` int64 [E], ``offsets`` [U + 1].

        An item counts once a user, and is not its own neighbour. The 500 most similar neighbours
        of an item are kept, of equals those with the lowest number.
        """
        users = np.repeat(np.arange(len(offsets) - 1), offsets.diff().numpy())
        shape = len(offsets) - 1, n_items
        chosen = sparse.csr_matrix((np.ones(len(users)), (users, items.numpy())), shape=shape)
        chosen.data[:] = 1
        lengths = np.sqrt(np.maximum(chosen.sum(0).A1, 1))  # [n_items]
        scaled = (chosen @ sparse.diags(1 / lengths)).tocsr()
        columns = scaled.tocsc()
        parts = [
            _nearest(columns[:, start : start + _BLOCK].T @ scaled, start)
            for start in range(0, n_items, _BLOCK)
        ]
        counts, near, cosines = (np.concatenate(part) for part in zip(*parts))
        return cls(
            torch.from_numpy(np.r_[0, counts.cumsum()]),
            torch.from_numpy(near.astype(np.int64)),
            torch.from_numpy(cosines.astype(np.float32)),
            weight,
            decay,
        )

    def to(self, device: torch.device | str) -> Neighbours:
        """The same with its tensors on ``device``."""
        parts = self.pointer.to(device), self.items.to(device), self.cosines.to(device)
        return Neighbours(*parts, self.weight, self.decay)

    def bonus(self, trie: Trie, histories: Tensor, lengths: Tensor, dtype: torch.dtype) -> Bonus:
        """What each of the ``histories`` int64 [B, T] of ``lengths`` int64 [B] adds to items."""
        ago = lengths.unsqueeze(1) - 1 - torch.arange(histories.shape[1], device=lengths.device)
        row, column = (ago >= 0).nonzero().unbind(1)  # [E]
        chosen = histories[row, column]
        share = self.weight * self.decay ** ago[row, column].to(dtype)  # [E]
        first = self.pointer[chosen]
        owner, entry = ragged.expand(first, self.pointer[chosen + 1] - first)  # [E']
        place = trie.item_places[self.items[entry]]
        known = (place >= 0).nonzero().squeeze(1)
        owner, entry, place = owner[known], entry[known], place[known]
        n_items = len(trie.leaf_items)
        keys, where = torch.unique(row[owner] * n_items + place, return_inverse=True)
        values = torch.zeros(len(keys), dtype=dtype, device=keys.device)
        values.index_add_(0, where, self.cosines[entry].to(dtype) * share[owner])
        starts = torch.arange(len(histories) + 1, device=keys.device) * n_items
        return Bonus(torch.searchsorted(keys, starts), keys % n_items, values)


@dataclass(frozen=True)
class Bonus:
    """A number for some of the items of each of n histories; zero for the others.

    ``pointer`` int64 [n + 1]: history h owns the entries from ``pointer[h]`` on; ``places`` int64
    [N], ascending within a history, number the items as ``Trie.leaf_items``; ``values`` [N].
    """

    pointer: Tensor
    places: Tensor
    values: Tensor

    def take(self, rows: Tensor | slice) -> Bonus:
        """Of some of the histories, in the order of ``rows``."""
        counts = self.pointer.diff()[rows]
        _, entry = ragged.expand(self.pointer[:-1][rows], counts)
        pointer = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return replace(self, pointer=pointer, places=self.places[entry], values=self.values[entry])

    def add_to(self, scores: Tensor) -> Tensor:
        """Add to ``scores`` [I, n], in place."""
        cells = self.places, self._rows()
        return scores.index_put_(cells, self.values.to(scores.dtype), accumulate=True)

    def at(self, rows: Tensor, places: Tensor, n_items: int) -> Tensor:
        """The numbers [E] of the items at ``places`` for the histories ``rows``, int64 [E]."""
        if len(self.places) == 0:
            return self.values.new_zeros(len(rows))
        keys, wanted = self._rows() * n_items + self.places, rows * n_items + places
        found = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
        return torch.where(keys[found] == wanted, self.values[found], 0)

    def _rows(self) -> Tensor:
        """The history of each entry, int64 [N]."""
        counts = self.pointer.diff()
        return torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)


def _nearest(cosines: sparse.csr_matrix, start: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Neighbours of a block of items, from ``start`` on: how many each has, which, and cosines.

    ``cosines`` [block, n_items], those of an item with itself included.
    """
    cosines.setdiag(0, k=start)
    cosines.eliminate_zeros()
    row = np.repeat(np.arange(cosines.shape[0]), np.diff(cosines.indptr))
    order = np.lexsort((cosines.indices, -cosines.data, row))
    rank = np.arange(len(row)) - cosines.indptr[row]
    order = order[rank < _KEPT]
    counts = np.bincount(row[order], minlength=cosines.shape[0])
    return counts, cosines.indices[order], cosines.data[order]
