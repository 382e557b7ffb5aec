"""GRU4Rec with item features in its input: the paper's GRU4Rec_F (a baseline of the paper, 5.1)."""

from __future__ import annotations

from recbole.model.sequential_recommender.gru4rec import GRU4Rec
from torch import nn

from recbole_bbqrec.model.base.checks import modalities_of, require_modalities
from recbole_bbqrec.model.base.history_model import PredictByRanking
from recbole_bbqrec.model.base.length_groups import InLengthGroups
from recbole_bbqrec.model.baseline_settings import MMGRU4RecSettings
from recbole_bbqrec.model.parts.feature_fusion import FusedItemEmbedding, ProjectedFeatures
from recbole_bbqrec.nn.dropout import replace_dropout
from recbole_bbqrec.protocols import ItemDataset, RunConfig
from recbole_bbqrec.settings import read


class MMGRU4Rec(InLengthGroups, PredictByRanking, GRU4Rec):
    """RecBole's GRU4Rec whose input is the item embedding fused with its modality features.

    Reference: Hidasi et al., "Parallel Recurrent Neural Network Architectures for Feature-rich
    Session-based Recommendations", RecSys 2016, which BBQRec's paper cites for its GRU4Rec_F. The
    same: features enter the recurrent network's input. Different: one network over the
    concatenation (as BBQRec's paper describes it) instead of parallel ones, and RecBole's
    cross-entropy over all items, scored with the learned item embedding alone.
    """

    item_embedding: nn.Embedding

    def __init__(self, config: RunConfig, dataset: ItemDataset) -> None:
        super().__init__(config, dataset)
        settings = read(MMGRU4RecSettings, config)
        std = float(self.item_embedding.weight.detach().std())
        features = ProjectedFeatures(
            dataset, modalities_of(dataset), settings.feature_size, settings.feature_scaling, std
        )
        self.item_embedding = FusedItemEmbedding(self.item_embedding, features)
        replace_dropout(self)

    @classmethod
    def check_options(cls, config: RunConfig) -> None:
        require_modalities(config, cls.__name__)
        read(MMGRU4RecSettings, config)
