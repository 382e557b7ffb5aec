"""Rings around an item in the graph of transitions: items that follow it in one, two, ... steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from recbole_bbqrec.data.histories import Histories


@dataclass(frozen=True)
class TransitionGraph:
    """Transitions of the training histories.

    * ``follows``: 0/1 [n_items, n_items]; item i stands right after item j in a history, at row j
      and column i.
    * ``weights``: log(1 + count) of each such pair over the largest of its row.
    """

    follows: sparse.csr_matrix
    weights: sparse.csr_matrix

    @classmethod
    def of(cls, histories: Histories, n_items: int) -> TransitionGraph:
        """Count consecutive pairs of items; an item after itself is no transition."""
        items = histories.items.numpy()
        owners = np.repeat(np.arange(len(histories)), histories.offsets.diff().numpy())
        pair = np.flatnonzero((owners[1:] == owners[:-1]) & (items[1:] != items[:-1]))
        cells = items[pair], items[pair + 1]
        counts = sparse.csr_matrix((np.ones(len(pair)), cells), shape=(n_items, n_items))
        weights = counts.log1p()
        largest = weights.max(axis=1).toarray().ravel()
        weights = sparse.diags(1 / np.where(largest > 0, largest, 1)) @ weights
        return cls((counts > 0).astype(np.float32), weights.astype(np.float32).tocsr())

    def rings(self, sources: np.ndarray, depth: int) -> np.ndarray:
        """Return the least number of transitions from each source to each item.

        ``sources`` int64 [B] are items; the result is int8 [B, n_items]. An item that is further
        away than ``depth``, or the source itself, has ``depth + 1``.
        """
        distance = np.full((len(sources), self.follows.shape[0]), depth + 1, dtype=np.int8)
        rows = np.arange(len(sources))
        visited = np.zeros(distance.shape, dtype=bool)
        visited[rows, sources] = True
        shape = (len(sources), self.follows.shape[0])
        edge = sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, sources)), shape=shape)
        for step in range(1, depth + 1):
            row, item = (edge @ self.follows).nonzero()
            new = ~visited[row, item]
            row, item = row[new], item[new]
            visited[row, item] = True
            distance[row, item] = step
            edge = sparse.csr_matrix((np.ones(len(row), np.float32), (row, item)), shape=shape)
        return distance

    def weights_from(self, sources: np.ndarray) -> np.ndarray:
        """Return the weights of the transitions from each source, float32 [B, n_items]."""
        rows: np.ndarray = self.weights[sources].toarray()
        return rows
