"""Neighbours of the history in the scores of all items, for models that rank by such scores."""

from __future__ import annotations

from typing import Any

import torch
from scipy import sparse
from torch import Tensor

from recbole_bbqrec.data.dataset import MultiModalDataset
from recbole_bbqrec.data.histories import Histories
from recbole_bbqrec.model.item_features import item_features
from recbole_bbqrec.model.item_neighbours import near_items


class NeighbourScores:
    """The sum of :mod:`recbole_bbqrec.generator.neighbours`, for every item at once.

    ``near`` [n_items, n_items] holds value(j, i) at row j and column i, or is None: all zero.
    """

    def __init__(self, near: sparse.csr_matrix | None, decay: float) -> None:
        self.near, self.decay = near, decay

    @classmethod
    def of(cls, config: Any, dataset: Any) -> NeighbourScores:
        """From training data and features; ``dataset`` is a ``MultiModalDataset``."""
        keys = ("feature_scaling", "feature_components", "feature_whitening")
        features = item_features(dataset, dataset.modalities, *(config[key] for key in keys))
        histories = Histories.from_training_data(dataset)
        near = near_items(config, histories, features, dataset.item_num)
        return cls(near, config["neighbour_decay"])

    def add_to(self, scores: Tensor, items: Tensor, lengths: Tensor) -> Tensor:
        """Add to ``scores`` float [B, n_items], in place.

        ``items`` int64 [B, T] are histories, right padded, of ``lengths`` int64 [B].
        """
        if self.near is None:
            return scores
        items, lengths = items.cpu(), lengths.cpu()
        ago = lengths.unsqueeze(1) - 1 - torch.arange(items.shape[1])  # [B, T]
        row, column = (ago >= 0).nonzero().unbind(1)  # [E]
        share = self.decay ** ago[row, column].double()
        cells = row.numpy(), items[row, column].numpy()
        shape = len(items), self.near.shape[0]
        history = sparse.csr_matrix((share.numpy(), cells), shape=shape)
        sums = (history @ self.near).toarray()  # [B, n_items]
        return scores.add_(torch.from_numpy(sums).to(scores.device, scores.dtype))


class WithNeighbours:
    """Goes before a ``HistoryRecommender`` class; adds what the neighbours of the history say.

    Training does not see them, as in BBQRec. They are made anew from the same data when a model is
    loaded, so that a finished run can be evaluated under other weights, and one of the other class
    with neighbours: ``properties_base`` names it.
    """

    dataset_class = MultiModalDataset
    use_id = True  # who chose an item, as in BBQRec
    adds_neighbours = True
    properties_base: str
    n_items: int
    ITEM_SEQ: str
    ITEM_SEQ_LEN: str

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)  # type: ignore[call-arg]
        self.neighbour_scores = NeighbourScores.of(config, dataset)

    @torch.no_grad()
    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Score of every item as the next one, float32 [B, n_items]; [PAD] has -inf."""
        scores = super().full_sort_predict(interaction)  # type: ignore[misc]
        items, lengths = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]
        return self.neighbour_scores.add_to(scores, items, lengths)
