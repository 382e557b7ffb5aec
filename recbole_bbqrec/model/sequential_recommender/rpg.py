"""RPG: long semantic IDs predicted digit by digit in parallel."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_bbqrec.data.dataset import MultiModalDataset
from recbole_bbqrec.model.checks import require_modality
from recbole_bbqrec.model.history import HistoryRecommender
from recbole_bbqrec.model.item_codes import CODE_MODALITY, ItemCodes
from recbole_bbqrec.model.transformer import CausalEncoder, init_weights


class RPG(HistoryRecommender):
    """Predicts all digits of the next item's OPQ code at once and scores every item exactly.

    Reference: Hou et al., "Generating Long Semantic IDs in Parallel for Recommendation", KDD
    2025. The same: OPQ codes of the text embedding, a GPT-2-like decoder over the mean of an
    item's code embeddings, one residual block per digit, the mean of the digits' cross-entropies
    (cosine / temperature against the code embeddings). Different: every item is scored, which
    the paper's graph-constrained decoding approximates.
    """

    dataset_class = MultiModalDataset

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.temperature: float = config["temperature"]
        self.item_codes = ItemCodes(config, dataset)
        hidden = config["hidden_size"]
        self.encoder = CausalEncoder.of(config)
        self.apply(init_weights)
        # Residual block of digit d: h + SiLU(h W_d + b_d); zero at first, so digits start alike.
        self.head_weight = nn.Parameter(torch.zeros(self.item_codes.digits, hidden, hidden))
        self.head_bias = nn.Parameter(torch.zeros(self.item_codes.digits, 1, hidden))

    @classmethod
    def check_options(cls, config: Any) -> None:
        super().check_options(config)
        require_modality(config, cls.__name__, CODE_MODALITY)

    def states(self, items: Tensor) -> Tensor:
        return self.encoder(self.item_codes(items))

    def digit_log_probabilities(self, states: Tensor) -> Tensor:
        """States [P, H] -> log-probability of each code of each digit, float32 [M, P, K]."""
        change = torch.baddbmm(
            self.head_bias.to(states.dtype),
            states.unsqueeze(0).expand(self.item_codes.digits, -1, -1),
            self.head_weight.to(states.dtype),
        )  # [M, P, H]
        heads = F.normalize(states.unsqueeze(0) + F.silu(change), dim=-1)  # [M, P, H]
        codes = F.normalize(self.item_codes.table(), dim=-1).to(heads.dtype)  # [M, K, H]
        return (heads @ codes.transpose(1, 2) / self.temperature).float().log_softmax(-1)

    def target_loss(self, states: Tensor, targets: Tensor) -> Tensor:
        log_probabilities = self.digit_log_probabilities(states)  # [M, P, K]
        self.item_codes.rows()  # makes the codes if there are none yet
        codes = self.item_codes.codes[targets].T.unsqueeze(-1)  # [M, P, 1]
        return -log_probabilities.gather(2, codes).squeeze(-1).mean(0)

    def item_logits(self, states: Tensor) -> Tensor:
        """Log-probability of every item: the sum over digits of that of its code (exact)."""
        log_probabilities = self.digit_log_probabilities(states)  # [M, P, K]
        # One row per (digit, code), one column per state: a sum of rows is then contiguous.
        table = log_probabilities.transpose(1, 2).flatten(0, 1).contiguous()  # [M * K, P]
        return F.embedding_bag(self.item_codes.rows()[1:], table, mode="sum").T  # [P, n_items - 1]
