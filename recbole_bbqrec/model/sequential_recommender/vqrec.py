"""VQ-Rec: items as product-quantized text codes (SPEC section 5)."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from recbole_bbqrec.data.dataset import MultiModalDataset
from recbole_bbqrec.model.checks import require_modality
from recbole_bbqrec.model.history import HistoryRecommender
from recbole_bbqrec.model.item_codes import CODE_MODALITY, ItemCodes
from recbole_bbqrec.model.transformer import CausalEncoder, init_weights


class VQRec(HistoryRecommender):
    """An item is the mean of the learned embeddings of its text's OPQ codes; no item IDs.

    Reference: Hou et al., "Learning Vector-Quantized Item Representation for Transferable
    Sequential Recommenders", WWW 2023. The same: OPQ codes of the text embedding, mean pooling,
    a SASRec-style encoder, cross-entropy over all items of cosine / temperature. Different: no
    pre-training on other domains (as in BBQRec's table), pre-norm layers, all prefixes of a user
    trained in one causal pass, and OPQ fitted on every item's text, not on training items only.
    """

    dataset_class = MultiModalDataset

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.temperature: float = config["temperature"]
        self.item_codes = ItemCodes(config, dataset)
        self.encoder = CausalEncoder.of(config)
        self.apply(init_weights)

    @classmethod
    def check_options(cls, config: Any) -> None:
        super().check_options(config)
        require_modality(config, cls.__name__, CODE_MODALITY)

    def states(self, items: Tensor) -> Tensor:
        return self.encoder(self.item_codes(items))

    def item_logits(self, states: Tensor) -> Tensor:
        vectors = F.normalize(self.item_codes.item_vectors()[1:], dim=-1)  # [n_items - 1, H]
        return F.normalize(states, dim=-1) @ vectors.to(states.dtype).T / self.temperature
