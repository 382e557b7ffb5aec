"""CoST's tokenizer: quantization by contrast instead of by reconstruction.

Reference: Zhu et al., "CoST: Contrastive Quantization based Semantic Tokenization for Generative
Recommendation", RecSys 2024.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_bbqrec.tokenizer.contrastive import info_nce
from recbole_bbqrec.tokenizer.rqvae.rqvae import ItemPass, RQVAETokenizer
from recbole_bbqrec.tokenizer.rqvae.settings import CoSTSettings


class CoSTTokenizer(RQVAETokenizer):
    """RQ-VAE whose decoded vector must be closer to its own item's features than to the others'.

    Items with the very same features are one candidate, not each other's negatives.
    """

    content: Tensor

    def __init__(
        self, config: CoSTSettings, modality: str, matrix: Tensor, present: Tensor
    ) -> None:
        super().__init__(config, modality, matrix, present)
        self.temperature = config.temperature
        self.weights["contrastive"] = config.contrastive_weight
        self.weights["reconstruction"] = config.reconstruction_weight
        # A number per distinct feature vector, int64 [n_items].
        content = torch.unique(matrix.float(), dim=0, return_inverse=True)[1]
        self.register_buffer("content", content, persistent=False)

    def item_terms(self, batch: ItemPass) -> dict[str, Tensor]:
        """The RQ-VAE's terms and "contrastive", InfoNCE of cos(xhat, x) over the batch's items."""
        terms = super().item_terms(batch)
        own = batch.present
        if not bool(own.any()):
            return {**terms, "contrastive": batch.decoded.sum() * 0}
        contrast = info_nce(
            batch.decoded[own], batch.inputs[own], self.content[batch.items[own]], self.temperature
        )
        return {**terms, "contrastive": contrast.mean()}
