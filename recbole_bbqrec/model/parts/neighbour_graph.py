"""Nearness of items: by co-occurrence in histories, and by the similarity of their features.

A rare item has too few training events for a good embedding, but its co-occurrences and features
are known exactly. Item-based nearest-neighbour recommenders rank by nothing else.
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
from recbole_bbqrec.model.parts.approximate_search import candidates, use_index
from recbole_bbqrec.model.settings import NeighbourSettings

_LATER = 50  # items after an item in a user's history that count as chosen after it
_CHOSEN = 500  # largest co-occurrences kept per item
_ALIKE = 50  # most similar items kept per item
_TIED = 500  # larger groups of equally near items at that cut are dropped
_STEPS = 10_000  # cosines are compared at 4 decimals: smaller differences are rounding
_CELLS = 1 << 25  # cosines, or numbers that they are made of, in memory at a time
#: Factor of the similarity to an added item that nobody chose yet: others have co-occurrences, too.
#: Chosen on Beauty, on validation targets of hidden items, see docs/new_items.md.
_UNCHOSEN = 1.5
_CANDIDATES = 100  # of an item in an approximate search: itself, its neighbours, and ties with them


def weighted_neighbours(
    settings: NeighbourSettings,
    histories: Histories | None,
    features: Sequence[Tensor],
    n_items: int,
    added: Tensor | None = None,
) -> Neighbours | None:
    """Sum both kinds of values by their weights; None where there is nothing to weigh.

    Without ``histories`` co-occurrence is left out, without ``features`` (each [n_items, F_m])
    their similarity. ``added`` as in :func:`alike`. With both, the similarity to an added item that
    is in no history counts 1.5 times, because co-occurrence cannot speak for it.
    """
    parts = []
    if not settings.cooccurrence_weight:
        histories = None
    if histories is not None:
        parts.append(settings.cooccurrence_weight * chosen_after(histories, n_items))
    if settings.feature_similarity_weight and features:
        nearest = alike(features, settings.neighbour_search, added)
        if histories is not None and added is not None and bool(added.any()):
            unchosen = added.numpy() & (np.bincount(histories.items, minlength=n_items) == 0)
            nearest = (nearest @ sparse.diags(np.where(unchosen, _UNCHOSEN, 1.0))).tocsr()
        parts.append(settings.feature_similarity_weight * nearest)
    if not parts:
        return None
    return Neighbours.of_matrix(sum(parts[1:], parts[0]), settings.neighbour_decay)


def chosen_after(histories: Histories, n_items: int) -> sparse.csr_matrix:
    """Return n(j, i) / sqrt(n(j)) at row j and column i, [n_items, n_items].

    n(j) users chose item j in training, and n(j, i) of them chose i among their next 50 items (only
    the first choice of an item counts). This is the share of users who went on to i, times
    sqrt(n(j)): a share of many users counts for more. The 500 largest values of an item are kept,
    of equal ones those with the lowest item number.
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


def alike(
    features: Sequence[Tensor], search: str = "exact", added: Tensor | None = None
) -> sparse.csr_matrix:
    """Return the similarity of the items' features, averaged over modalities: [n_items, n_items].

    ``features``: float [n_items, F_m] of each modality, zero for items without it. In each modality
    an item's neighbours are the 50 items with the largest cosines above 0; their values are the
    cosines over the mean of those cosines, so that a few near items count for more than 50 of one
    kind. Modalities without neighbours of an item are left out of its mean.

    * Ties: equally near items share the places that are left. 40 items for 10 places count a
      quarter of their cosines each. So item numbers do not decide; labels as features make many.
    * Cap: groups of more than 500 such items are dropped.
    * Rounding: cosines are compared at 4 decimals, so that machines agree but for edge cases.

    The time of an exact search grows with the square of the number of items. An approximate one
    (``search``, see :func:`~recbole_bbqrec.model.parts.approximate_search.use_index`) finds at
    least 97 % of the neighbours, and ties among 100 candidates alone.

    ``added``: bool [n_items], items that were added to a trained run. They change no value between
    two other items: beside these, an item has those of them as neighbours that are nearer than its
    last neighbour, valued by the same mean.
    """
    if added is not None and bool(added.any()):
        matrices = [_with_added(part, search, added) for part in features]
        known = [matrix[:, (~added).numpy().nonzero()[0]] for matrix in matrices]
    else:
        known = matrices = [_alike_in(part, use_index(search, len(part))) for part in features]
    counts = sum((np.diff(matrix.indptr) > 0).astype(float) for matrix in known)
    total = sum(matrices[1:], matrices[0])
    return (sparse.diags(1 / np.maximum(counts, 1)) @ total).tocsr()


def _alike_in(features: Tensor, by_index: bool) -> sparse.csr_matrix:
    """Return the values of one modality [n_items, F], [n_items, n_items]."""
    unit = F.normalize(features.float(), dim=1)
    n_items = len(unit)
    if by_index:
        near = candidates(unit, min(_CANDIDATES, n_items), _ALIKE)
        at_once = max(1, _CELLS // near.shape[1] // unit.shape[1])
        parts = [
            _nearest((unit[rows].unsqueeze(1) * unit[near[rows]]).sum(2), rows, near[rows], n_items)
            for rows in torch.arange(n_items).split(at_once)
        ]
    else:
        every = torch.arange(n_items)
        parts = [
            _nearest(unit[rows] @ unit.t(), rows, every.expand(len(rows), -1), n_items)
            for rows in every.split(max(1, _CELLS // n_items))
        ]
    return sparse.vstack(parts, format="csr")


def _with_added(features: Tensor, search: str, added: Tensor) -> sparse.csr_matrix:
    """Do the same where the items ``added`` bool [n_items] came later."""
    order = torch.cat([(~added).nonzero().squeeze(1), added.nonzero().squeeze(1)])
    unit = F.normalize(features[order].float(), dim=1)
    count, every = int((~added).sum()), torch.arange(len(unit))
    old, new = unit[:count], unit[count:]
    among = _alike_in(features[~added], use_index(search, count))
    at_once = max(1, _CELLS // len(unit))
    beside, below = [], []
    for rows in every[:count].split(at_once):
        steps = (old[rows] @ old.t()).mul_(_STEPS).round_()
        steps[torch.arange(len(rows)), rows] = 0
        top = steps.topk(min(_ALIKE, count), 1).values.clamp_(min=0)  # [R, 50]
        means = (top.sum(1) / (top > 0).sum(1).clamp(min=1) / _STEPS)[:, None]  # [R, 1]
        steps = (old[rows] @ new.t()).mul_(_STEPS).round_()  # [R, m]
        values = steps / _STEPS / torch.where(means > 0, means, 1)
        beside.append(sparse.csr_matrix(torch.where(steps > top[:, -1:], values, 0).numpy()))
    for rows in every[count:].split(at_once):
        cosines = unit[rows] @ unit.t()
        below.append(_nearest(cosines, rows, every.expand(len(rows), -1), len(unit)))
    above = sparse.hstack([among, sparse.vstack(beside)], format="csr")
    place = order.argsort().numpy()
    return sparse.vstack([above, *below], format="csr")[place][:, place]


def _nearest(cosines: Tensor, rows: Tensor, items: Tensor, n_items: int) -> sparse.csr_matrix:
    """Return the values of the neighbours of the items ``rows`` [R], [R, n_items].

    ``cosines``: float32 [R, C], with the items ``items`` int64 [R, C], each once a row but for the
    row's own.
    """
    steps = cosines.mul_(_STEPS).round_()
    steps[items == rows.unsqueeze(1)] = 0
    last = steps.topk(min(_ALIKE, steps.shape[1]), 1).values[:, -1:].clamp_(min=0)  # [R, 1]
    nearer, level = steps > last, (steps == last) & (last > 0)
    tied = level.sum(1)  # [R]
    share = ((_ALIKE - nearer.sum(1)) / tied.clamp(min=1)).clamp_(max=1)
    share[(share < 1) & (tied > _TIED)] = 0
    row, place = (nearer | (level & (share > 0).unsqueeze(1))).nonzero(as_tuple=True)
    weight = torch.where(nearer[row, place], 1, share[row])
    kept = steps[row, place] / _STEPS
    weights = torch.zeros(len(rows)).index_add_(0, row, weight)
    means = torch.zeros(len(rows)).index_add_(0, row, weight * kept) / weights  # read if > 0
    values = weight * kept / means[row]
    columns = items[row, place]
    return sparse.csr_matrix(
        (values.numpy(), (row.numpy(), columns.numpy())), shape=(len(rows), n_items)
    )


def _owners(histories: Histories) -> np.ndarray:
    """Return the number of each event's history, int64 [E]."""
    return np.repeat(np.arange(len(histories)), histories.offsets.diff().numpy())


def _largest(matrix: sparse.csr_matrix, kept: int) -> sparse.csr_matrix:
    """Keep the largest entries of each row, of equal ones those of the first columns."""
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((matrix.indices, -matrix.data, row))
    rank = np.arange(len(row)) - matrix.indptr[row]
    order = order[rank < kept]
    parts = matrix.data[order], (row[order], matrix.indices[order])
    return sparse.csr_matrix(parts, shape=matrix.shape)
