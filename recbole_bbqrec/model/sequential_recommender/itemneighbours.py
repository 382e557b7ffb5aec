"""Nearest neighbours of the history alone: what BBQRec adds to its item head, without a network."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType
from scipy import sparse
from torch import Tensor, nn

from recbole_bbqrec.data.dataset import MultiModalDataset
from recbole_bbqrec.data.histories import Histories
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.model.item_features import item_features
from recbole_bbqrec.model.item_neighbours import near_items
from recbole_bbqrec.model.predict import PredictByRanking


class ItemNeighbours(PredictByRanking, SequentialRecommender):
    """Ranks items by how near they are to those of the history; nothing is learned.

    Reference: Sarwar et al., "Item-Based Collaborative Filtering Recommendation Algorithms", WWW
    2001. Here an item j of the history gives to i a value by the users who chose i after j and by
    the similarity of their features (:mod:`recbole_bbqrec.model.item_neighbours`), and the older j
    is, the less. Any comparison of sequential models should have it beside them.
    """

    dataset_class = MultiModalDataset
    input_type = InputType.POINTWISE
    use_id = True  # who chose an item, as in BBQRec

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.decay: float = config["neighbour_decay"]
        keys = ("feature_scaling", "feature_components", "feature_whitening")
        features = item_features(dataset, dataset.modalities, *(config[key] for key in keys))
        histories = Histories.from_training_data(dataset)
        # Neither in the checkpoint nor on the device: made anew from the same data.
        self.near: sparse.csr_matrix = near_items(config, histories, features, self.n_items)
        self.unused = nn.Parameter(torch.zeros(1))  # RecBole's trainer wants something to train

    @classmethod
    def check_options(cls, config: Any) -> None:
        """Checks across options, before any file is read; raises UserError."""
        if config["benchmark_filename"]:
            raise UserError(
                f"Option `benchmark_filename` is {config['benchmark_filename']!r}; {cls.__name__} "
                "needs whole user sequences: give one .inter file and let RecBole split it."
            )
        if config["cooccurrence_weight"]:
            return
        if not (config["feature_similarity_weight"] and config["modalities"]):
            raise UserError(
                f"Options `cooccurrence_weight` is {config['cooccurrence_weight']}, "
                f"`feature_similarity_weight` {config['feature_similarity_weight']} and "
                f"`modalities` {config['modalities']!r}: nothing is left to rank by. Give a weight."
            )

    def calculate_loss(self, interaction: Any) -> Tensor:
        """Zero: nothing is learned."""
        return self.unused.sum() * 0.0

    @torch.no_grad()
    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Score of every item as the next one, float32 [B, n_items]; [PAD] has -inf."""
        items, lengths = interaction[self.ITEM_SEQ].cpu(), interaction[self.ITEM_SEQ_LEN].cpu()
        ago = lengths.unsqueeze(1) - 1 - torch.arange(items.shape[1])  # [B, T]
        row, column = (ago >= 0).nonzero().unbind(1)  # [E]
        share = self.decay ** ago[row, column].double()
        cells = row.numpy(), items[row, column].numpy()
        history = sparse.csr_matrix((share.numpy(), cells), shape=(len(items), self.n_items))
        scores = torch.from_numpy((history @ self.near).toarray()).float()
        scores = F.pad(scores[:, 1:], (1, 0), value=-torch.inf)
        return scores.to(interaction[self.ITEM_SEQ].device)
