"""CoST's tokenizer: quantization by contrast instead of by reconstruction.

Reference: Zhu et al., "CoST: Contrastive Quantization based Semantic Tokenization for Generative
Recommendation", RecSys 2024.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_bbqrec.distributed.sums import mean, own_of, rows_of_all
from recbole_bbqrec.tokenizer.losses import info_nce
from recbole_bbqrec.tokenizer.rqvae.rqvae import ItemPass, RQVAETokenizer
from recbole_bbqrec.tokenizer.rqvae.settings import CoSTSettings


class CoSTTokenizer(RQVAETokenizer):
    """RQ-VAE whose decoded vector must be closest to its own item's features.

    Items with identical features are one candidate, so they are not each other's negatives.
    """

    content: Tensor

    def __init__(
        self, config: CoSTSettings, modality: str, matrix: Tensor, present: Tensor
    ) -> None:
        super().__init__(config, modality, matrix, present)
        self.temperature = config.temperature
        self.weights["contrastive"] = config.contrastive_weight
        self.weights["reconstruction"] = config.reconstruction_weight
        # Number of each item's feature vector, int64 [n_items]; identical vectors share it.
        content = torch.unique(matrix.float(), dim=0, return_inverse=True)[1]
        self.register_buffer("content", content, persistent=False)

    def item_terms(self, batch: ItemPass) -> dict[str, Tensor]:
        """Add "contrastive", InfoNCE of cos(xhat, x) over the batch's items, to RQ-VAE's terms."""
        terms = super().item_terms(batch)
        present = self.present[batch.every]
        candidates = rows_of_all(batch.inputs, len(batch.every))[present]
        if len(candidates) == 0:
            return {**terms, "contrastive": batch.decoded.sum() * 0}
        contrast = info_nce(
            batch.decoded[batch.present],
            candidates,
            self.content[batch.every[present]],
            self.temperature,
            own_of(present),
        )
        return {**terms, "contrastive": mean(contrast)}
