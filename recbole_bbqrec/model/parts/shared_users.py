"""Nearness of items by the users who chose both, and by their features, as in STAR."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor

from recbole_bbqrec.data.histories import Histories
from recbole_bbqrec.protocols import ItemDataset


def shared_users(histories: Histories, n_items: int) -> sparse.csr_matrix:
    """Return n(j, i) / sqrt(n(j) n(i)) at row j and column i, [n_items, n_items].

    n(j) users chose item j in training, n(j, i) of them chose i, too: the cosine of the two items'
    columns in the 0/1 matrix of users and items. An item has 0 with itself.
    """
    counts = np.diff(histories.offsets.numpy())
    users = np.repeat(np.arange(len(counts)), counts)
    cells = users, histories.items.numpy()
    chosen = sparse.csr_matrix((np.ones(len(users)), cells), shape=(len(counts), n_items))
    chosen.data[:] = 1  # a user counts once for an item
    counted = np.maximum(np.asarray(chosen.sum(0)).ravel(), 1)
    scaled = chosen @ sparse.diags(1 / np.sqrt(counted))
    cosines = (scaled.T @ scaled).tocsr()
    cosines.setdiag(0)
    cosines.eliminate_zeros()
    return cosines


def unit_features(dataset: ItemDataset, names: Sequence[str]) -> Tensor:
    """Return the features of all items as they are in the files, float32 [n_items, F].

    The features of each modality are brought to length 1, and an item's are joined and brought to
    length 1 again, so that a product of two rows is a cosine. An item without features has zeros.
    """
    parts = [F.normalize(dataset.item_features(name).matrix.float(), dim=1) for name in names]
    return F.normalize(torch.cat(parts, 1), dim=1)


def last_items(items: Tensor, lengths: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Cut histories to their last ``count`` items.

    ``items`` int64 [B, T], right padded, of ``lengths`` int64 [B]; returns both cut, [B, C] and
    [B].
    """
    kept = lengths.clamp(max=count)
    step = torch.arange(min(count, items.shape[1]), device=items.device)  # [C]
    index = (lengths - kept).unsqueeze(1) + step  # [B, C]
    inside = step < kept.unsqueeze(1)
    return items.gather(1, torch.where(inside, index, 0)) * inside, kept
