"""Neighbours of the history in the scores of all items."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from recbole_bbqrec.data.histories import Histories
from recbole_bbqrec.generator.items.neighbour_bonus import Neighbours
from recbole_bbqrec.model.base.checks import modalities_of
from recbole_bbqrec.model.parts.item_features import item_features
from recbole_bbqrec.model.parts.neighbour_graph import weighted_neighbours
from recbole_bbqrec.model.settings import FeatureSettings, NeighbourSettings
from recbole_bbqrec.protocols import ItemDataset, RunConfig
from recbole_bbqrec.settings import read


class NeighbourScores:
    """Adds :mod:`~recbole_bbqrec.generator.items.neighbour_bonus` to scores; None adds nothing."""

    def __init__(self, neighbours: Neighbours | None) -> None:
        self.neighbours = neighbours

    @classmethod
    def of(cls, config: RunConfig, dataset: ItemDataset) -> NeighbourScores:
        """Make them from training data and features of a ``MultiModalDataset``."""
        features = item_features(dataset, modalities_of(dataset), read(FeatureSettings, config))
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
        # In float64, so that rounding does not decide between items of equal bonus.
        bonus = self.neighbours.bonus(scores.shape[1], items, lengths, torch.float64)
        bonus.add_to(scores.t())
        return scores


class WithNeighbours:
    """Base to put before a ``HistoryRecommender`` class; adds neighbours of the history to scores.

    Training does not see them, as in BBQRec. They are made anew when a model is loaded, so that a
    finished run can be evaluated under other weights, and a run of the class without neighbours,
    which ``trained_as`` of its spec names, with them.
    """

    n_items: int
    ITEM_SEQ: str
    ITEM_SEQ_LEN: str

    def __init__(self, config: RunConfig, dataset: ItemDataset) -> None:
        super().__init__(config, dataset)  # type: ignore[call-arg]
        self.neighbour_scores = NeighbourScores.of(config, dataset)

    @torch.no_grad()
    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Score every item as the next one, float32 [B, n_items]; [PAD] has -inf."""
        scores = super().full_sort_predict(interaction)  # type: ignore[misc]
        items, lengths = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]
        return self.neighbour_scores.add_to(scores, items, lengths)
