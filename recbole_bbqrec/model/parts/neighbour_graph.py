"""How near items are to each other: who was chosen after whom, and whose features are alike.

A rare item has too few training events for its embedding to be learned well, but which users chose
it after which other item, and what it looks like, is known exactly. Item-based nearest-neighbour
recommenders rank by nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor

from recbole_bbqrec.data.histories import Histories
from recbole_bbqrec.generator.items.neighbour_bonus import Neighbours
from recbole_bbqrec.model.settings import NeighbourSettings

_LATER = 50  # items after an item, in a user's history, that count as chosen after it
_CHOSEN = 500  # items chosen after an item that are kept, the ones of the largest values
_ALIKE = 50  # items with the most similar features that are kept
_TIED = 500  # items equally near at that cut that may share the room left; of more, none is kept
_STEPS = 10_000  # to one: cosines are compared in these steps, for rounding makes smaller ones
_CELLS = 1 << 25  # cosines held at a time


def weighted_neighbours(
    settings: NeighbourSettings,
    histories: Histories | None,
    features: Sequence[Tensor],
    n_items: int,
) -> Neighbours | None:
    """Sum both kinds of values by their weights; None where there is nothing to weigh.

    Without ``histories`` co-occurrence is left out, without ``features`` (each [n_items, F_m])
    their similarity.
    """
    parts = []
    if settings.cooccurrence_weight and histories is not None:
        parts.append(settings.cooccurrence_weight * chosen_after(histories, n_items))
    if settings.feature_similarity_weight and features:
        parts.append(settings.feature_similarity_weight * alike(features))
    if not parts:
        return None
    return Neighbours.of_matrix(sum(parts[1:], parts[0]), settings.neighbour_decay)


def chosen_after(histories: Histories, n_items: int) -> sparse.csr_matrix:
    """n(j, i) / sqrt(n(j)) at row j and column i: [n_items, n_items].

    n(j) users chose the item j in training, n(j, i) of them chose i later, as one of their next 50
    items (an item counts where a user chose it first). That is the share of the users of j who went
    on to i, and counts for more where there are more of them. The 500 largest values of an item are
    kept, of equals those with the lowest number.
    """
    items, users = histories.items.numpy(), _owners(histories)
    key = users * n_items + items
    first = np.sort(np.unique(key, return_index=True)[1])
    items, users = items[first], users[first]
    counts = np.maximum(np.bincount(items, minlength=n_items), 1)
    total = sparse.csr_matrix((n_items, n_items))
    for gap in range(1, _LATER + 1):
        rows = np.flatnonzero(users[gap:] == users[:-gap])
        if len(rows) == 0:
            break
        pairs = items[rows], items[rows + gap]
        total = total + sparse.csr_matrix((np.ones(len(rows)), pairs), shape=total.shape)
    return _largest((sparse.diags(1 / np.sqrt(counts)) @ total).tocsr(), _CHOSEN)


def alike(features: Sequence[Tensor]) -> sparse.csr_matrix:
    """Mean over the modalities of how alike an item's features are: [n_items, n_items].

    ``features``: float [n_items, F_m] of each modality, zero for items without it; a modality in
    which an item is like no other has no part in its mean. An item's neighbours in one modality are
    the 50 with the largest cosines above 0, and their values those cosines over the mean of them:
    50 items that are all of one kind say less of the next item than a few near ones among others
    that are not. Of items that are equally near, to four decimals, and of which only some have room
    among the 50, all are neighbours and share that room: 40 items for 10 places are worth a quarter
    of their cosines each; more than 500 are left out. So the items' numbers do not decide which
    they are, nor a machine's rounding, but for cosines on the edge of a decimal; labels as features
    make many such items. Each modality by itself, since the noise of one would hide what another
    knows. The time grows with the square of the number of items.
    """
    matrices = [_alike_in(part) for part in features]
    counts = sum((np.diff(matrix.indptr) > 0).astype(float) for matrix in matrices)
    total = sum(matrices[1:], matrices[0])
    return (sparse.diags(1 / np.maximum(counts, 1)) @ total).tocsr()


def _alike_in(features: Tensor) -> sparse.csr_matrix:
    """The cosines of one modality [n_items, F] over their means, [n_items, n_items]."""
    unit = F.normalize(features.float(), dim=1)
    at_once = max(1, _CELLS // len(unit))
    parts = [_nearest(unit, rows) for rows in torch.arange(len(unit)).split(at_once)]
    return sparse.vstack(parts, format="csr")


def _nearest(unit: Tensor, rows: Tensor) -> sparse.csr_matrix:
    """Values of the neighbours of the items ``rows`` [R], [R, n_items].

    ``unit``: float32 [n_items, F], rows of length 1 or 0.
    """
    steps = (unit[rows] @ unit.t()).mul_(_STEPS).round_()  # cosines, [R, n_items]
    steps[torch.arange(len(rows)), rows] = 0
    last = steps.topk(min(_ALIKE, len(unit)), 1).values[:, -1:].clamp_(min=0)  # [R, 1]
    nearer, level = steps > last, (steps == last) & (last > 0)
    tied = level.sum(1)  # [R]
    share = ((_ALIKE - nearer.sum(1)) / tied.clamp(min=1)).clamp_(max=1)
    share[(share < 1) & (tied > _TIED)] = 0
    row, item = (nearer | (level & (share > 0).unsqueeze(1))).nonzero(as_tuple=True)
    weight = torch.where(nearer[row, item], 1, share[row])
    cosines = steps[row, item] / _STEPS
    weights = torch.zeros(len(rows)).index_add_(0, row, weight)
    means = torch.zeros(len(rows)).index_add_(0, row, weight * cosines) / weights  # read if > 0
    values = weight * cosines / means[row]
    return sparse.csr_matrix(
        (values.numpy(), (row.numpy(), item.numpy())), shape=(len(rows), len(unit))
    )


def _owners(histories: Histories) -> np.ndarray:
    """Number of the history of each event, int64 [E]."""
    return np.repeat(np.arange(len(histories)), histories.offsets.diff().numpy())


def _largest(matrix: sparse.csr_matrix, kept: int) -> sparse.csr_matrix:
    """The largest entries of each row; of equals those of the first columns."""
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((matrix.indices, -matrix.data, row))
    rank = np.arange(len(row)) - matrix.indptr[row]
    order = order[rank < kept]
    parts = matrix.data[order], (row[order], matrix.indices[order])
    return sparse.csr_matrix(parts, shape=matrix.shape)
