"""Nearest neighbours of the history: alone, and in the scores of ESASRec and VQRec.

BBQRec adds the same values to its item head at decoding. A comparison with these models shows what
the rest of BBQRec is worth.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType
from torch import Tensor, nn

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.model.base.history_model import PredictByRanking
from recbole_bbqrec.model.parts.neighbour_model import NeighbourScores, WithNeighbours
from recbole_bbqrec.model.sequential_recommender.esasrec import ESASRec
from recbole_bbqrec.model.sequential_recommender.vqrec import VQRec
from recbole_bbqrec.protocols import ItemDataset, RunConfig


class ItemNeighbours(PredictByRanking, SequentialRecommender):
    """Ranks items by how near they are to those of the history; nothing is learned.

    Reference: Sarwar et al., "Item-Based Collaborative Filtering Recommendation Algorithms", WWW
    2001. Here an item j of the history adds to the score of i by co-occurrence and by similarity of
    features (:mod:`recbole_bbqrec.model.parts.neighbour_graph`), the less the older j is. A
    baseline for any comparison of sequential models.
    """

    input_type = InputType.POINTWISE

    def __init__(self, config: RunConfig, dataset: ItemDataset) -> None:
        super().__init__(config, dataset)
        # Not in the checkpoint: made anew from the same data.
        self.neighbour_scores = NeighbourScores.of(config, dataset)
        self.unused = nn.Parameter(torch.zeros(1))  # RecBole's trainer needs a parameter

    @classmethod
    def check_options(cls, config: RunConfig) -> None:
        """Check options before any file is read; raises UserError."""
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
        """Return zero: nothing is learned."""
        return self.unused.sum() * 0.0

    @torch.no_grad()
    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Score every item as the next one, float32 [B, n_items]; [PAD] has -inf."""
        items, lengths = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]
        scores = torch.zeros(len(items), self.n_items, device=items.device)
        self.neighbour_scores.add_to(scores, items, lengths)
        return F.pad(scores[:, 1:], (1, 0), value=-torch.inf)


class ESASRecNeighbours(WithNeighbours, ESASRec):
    """Ranks by ESASRec's logits plus the scores of :class:`ItemNeighbours`.

    Trained exactly as ESASRec; the epoch is chosen with neighbours.
    """

    properties_base = "ESASRec"


class VQRecNeighbours(WithNeighbours, VQRec):
    """Ranks by VQRec's logits plus the scores of :class:`ItemNeighbours`.

    VQRec's network did best on Beauty with the history masked (docs/results.md). Trained exactly as
    VQRec; the epoch is chosen with neighbours.
    """

    properties_base = "VQRec"
