"""SASRec with item features in its input: the paper's SASRec_F (a baseline of the paper, 5.1)."""

from __future__ import annotations

from recbole.model.sequential_recommender.sasrec import SASRec
from torch import nn

from recbole_bbqrec.model.base.checks import modalities_of, require_modalities
from recbole_bbqrec.model.base.history_model import PredictByRanking
from recbole_bbqrec.model.base.length_groups import InLengthGroups
from recbole_bbqrec.model.baseline_settings import MMSASRecSettings
from recbole_bbqrec.model.parts.feature_fusion import FusedItemEmbedding, ProjectedFeatures
from recbole_bbqrec.nn.dropout import replace_dropout
from recbole_bbqrec.protocols import ItemDataset, RunConfig
from recbole_bbqrec.settings import read


class MMSASRec(InLengthGroups, PredictByRanking, SASRec):
    """RecBole's SASRec whose input is the item embedding fused with its modality features.

    Reference: Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018; the
    features are BBQRec's baseline SASRec_F. The same as RecBole's SASRec: everything but the
    input. Different from RecBole's SASRecF: features are pre-trained vectors, not categories,
    and every modality is projected before it is concatenated. Items are scored with the learned
    item embedding alone.
    """

    item_embedding: nn.Embedding

    def __init__(self, config: RunConfig, dataset: ItemDataset) -> None:
        super().__init__(config, dataset)
        settings = read(MMSASRecSettings, config)
        features = ProjectedFeatures(
            dataset,
            modalities_of(dataset),
            settings.feature_size,
            settings.feature_scaling,
            std=self.initializer_range,
        )
        self.item_embedding = FusedItemEmbedding(self.item_embedding, features)
        replace_dropout(self)

    @classmethod
    def check_options(cls, config: RunConfig) -> None:
        require_modalities(config, cls.__name__)
        read(MMSASRecSettings, config)
