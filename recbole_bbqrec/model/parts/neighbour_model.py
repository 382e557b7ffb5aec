"""Neighbours of the history in the scores of all items, for models that rank by such scores."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from recbole_bbqrec.data.dataset import MultiModalDataset
from recbole_bbqrec.data.histories import Histories
from recbole_bbqrec.generator.items.neighbour_bonus import Neighbours
from recbole_bbqrec.model.parts.item_features import item_features
from recbole_bbqrec.model.parts.neighbour_graph import weighted_neighbours
from recbole_bbqrec.model.settings import FeatureSettings, NeighbourSettings
from recbole_bbqrec.protocols import ItemDataset, RunConfig
from recbole_bbqrec.settings import read


class NeighbourScores:
    """Sum of all items' :mod:`~recbole_bbqrec.generator.items.neighbour_bonus`; or nothing."""

    def __init__(self, neighbours: Neighbours | None) -> None:
        self.neighbours = neighbours

    @classmethod
    def of(cls, config: RunConfig, dataset: ItemDataset) -> NeighbourScores:
        """From training data and features; ``dataset`` is a ``MultiModalDataset``."""
        features = item_features(dataset, dataset.modalities, read(FeatureSettings, config))
        histories = Histories.from_training_data(dataset)
        settings = read(NeighbourSettings, config)
        return cls(weighted_neighbours(settings, histories, features, dataset.item_num))

    def add_to(self, scores: Tensor, items: Tensor, lengths: Tensor) -> Tensor:
        """Add to ``scores`` float [B, n_items], in place.

        ``items`` int64 [B, T] are histories, right padded, of ``lengths`` int64 [B].
        """
        if self.neighbours is None:
            return scores
        self.neighbours = self.neighbours.to(scores.device)
        every = torch.arange(scores.shape[1], device=scores.device)
        # In float64: of two items that gain alike, none may be ahead by rounding alone.
        bonus = self.neighbours.bonus(every, items, lengths, torch.float64)
        bonus.add_to(scores.t())
        return scores


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

    def __init__(self, config: RunConfig, dataset: ItemDataset) -> None:
        super().__init__(config, dataset)  # type: ignore[call-arg]
        self.neighbour_scores = NeighbourScores.of(config, dataset)

    @torch.no_grad()
    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Score of every item as the next one, float32 [B, n_items]; [PAD] has -inf."""
        scores = super().full_sort_predict(interaction)  # type: ignore[misc]
        items, lengths = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]
        return self.neighbour_scores.add_to(scores, items, lengths)
