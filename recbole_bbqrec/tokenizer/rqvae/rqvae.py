"""RQ-VAE over one modality, trained on items alone: the tokenizer of TIGER.

Reference: Rajput et al., "Recommender Systems with Generative Retrieval", NeurIPS 2023.
"""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from recbole_bbqrec.distributed.sums import part
from recbole_bbqrec.nn.standardizer import Standardizer, mlp
from recbole_bbqrec.nn.transfer import send
from recbole_bbqrec.tokenizer.losses import masked_mean
from recbole_bbqrec.tokenizer.network import QuantizingNetwork
from recbole_bbqrec.tokenizer.quantizer import Quantization, ResidualQuantizer
from recbole_bbqrec.tokenizer.rqvae.settings import RQVAESettings


class ItemPass(NamedTuple):
    """Tensors of one pass over U distinct items."""

    items: Tensor  # int64 [U]
    present: Tensor  # bool [U], true if the item has the modality
    inputs: Tensor  # [U, dim] scaled features, zero where absent
    quantization: Quantization  # of z [U, 1, D]
    decoded: Tensor  # [U, dim]
    every: Tensor  # int64, the distinct items of all processes; of one alone, ``items``


class RQVAETokenizer(QuantizingNetwork):
    """Encoder, residual quantizer and decoder of one modality; no user sequences.

    ``matrix`` float16/float32 [n_items, dim] and ``present`` bool [n_items] are the features of
    ``modality``. An item without them is encoded as the average item and does not count in the
    losses. The encoder ends in a linear layer, as TIGER's does, without BBQRec's LayerNorm.

    A subclass adds terms (:meth:`item_terms`) and their ``weights``, by default 1.
    """

    uses_sequences = False
    matrix: Tensor
    present: Tensor

    def __init__(
        self, config: RQVAESettings, modality: str, matrix: Tensor, present: Tensor
    ) -> None:
        super().__init__(len(matrix))
        if tuple(present.shape) != (len(matrix),):
            raise ValueError(f"present must be [{len(matrix)}], got {tuple(present.shape)}")
        self.config, self.modality = config, modality
        self.register_buffer("matrix", matrix, persistent=False)
        self.register_buffer("present", present.bool(), persistent=False)
        self.standardizer = Standardizer(matrix, present.bool(), config.feature_scaling)
        dim, hidden = matrix.shape[1], config.encoder_hidden
        self.encoder = mlp([dim, *hidden, config.codebook_dim], config.dropout)
        self.decoder = mlp([config.codebook_dim, *reversed(hidden), dim], config.dropout)
        self.set_quantizer(
            ResidualQuantizer(config.levels, config.codebook_size, config.codebook_dim)
        )
        self.weights: dict[str, float] = {"commitment": config.commitment_weight}

    @property
    def signals(self) -> tuple[str, ...]:
        """Name of the one modality."""
        return (self.modality,)

    def inputs(self, items: Tensor) -> Tensor:
        """Scaled features float32 [U, dim] of items int64 [U]; zero (the mean) where absent."""
        return self.standardizer(self.matrix[items]) * self.present[items].unsqueeze(-1)

    def represent(self, items: Tensor) -> Tensor:
        """Encode items int64 [U] as z [U, 1, D]."""
        return self._encode(self.inputs(items))

    def signals_present(self) -> Tensor:
        """Mask bool [n_items, 1] of the items that have the modality."""
        return self.present.unsqueeze(1)

    def _encode(self, inputs: Tensor) -> Tensor:
        return self.encoder(inputs).to(inputs.dtype).unsqueeze(1)  # float32 under autocast too

    def losses(self, items: Tensor, sequences: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return every term, unweighted, and "total", their weighted sum.

        items int64 [U] may repeat and hold 0; sequences and targets are not read. Keys: total,
        reconstruction, codebook, commitment, and those of the subclass. Of several processes,
        which get the same items, each returns its part of every term; the parts add up.
        """
        every = torch.unique(items[items > 0])  # best on the CPU, where it needs no wait
        every = send(every, self.matrix.device)
        items = every[part()]
        inputs, present = self.inputs(items), self.present[items]
        quantization = self._quantized(self._encode(inputs), present.unsqueeze(-1))
        decoded = self.decoder(quantization.quantized_ste.squeeze(1))  # [U, dim]
        terms = self.item_terms(ItemPass(items, present, inputs, quantization, decoded, every))
        parts = [self.weights.get(name, 1.0) * term for name, term in terms.items()]
        terms["total"] = reduce(torch.add, parts)
        return terms

    def item_terms(self, batch: ItemPass) -> dict[str, Tensor]:
        """Return the reconstruction over items with the modality, and the quantizer's terms."""
        mean = self.config.recon_reduction == "mean"
        error = (batch.decoded - batch.inputs).pow(2)  # [U, dim]
        error = error.mean(-1) if mean else error.sum(-1)
        mask = batch.present.float()
        scale = 1 / self.config.codebook_dim if mean else 1.0
        return {
            "reconstruction": masked_mean(error, mask),
            "codebook": scale * batch.quantization.codebook_loss.sum(),
            "commitment": scale * batch.quantization.commitment_loss.sum(),
        }
