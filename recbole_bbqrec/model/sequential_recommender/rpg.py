"""RPG: long semantic IDs predicted digit by digit in parallel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_bbqrec.model.baseline_settings import RPGSettings
from recbole_bbqrec.model.parts.item_codes import CodeRecommender
from recbole_bbqrec.protocols import ItemDataset, RunConfig

_STATES = 32  # states per pass over the items: their table stays in the processor's cache


class RPG(CodeRecommender):
    """Predicts all digits of the next item's OPQ code at once and scores every item exactly.

    Reference: Hou et al., "Generating Long Semantic IDs in Parallel for Recommendation", KDD
    2025. The same: OPQ codes of the whitened principal components of the text embedding, a
    GPT-2-like decoder over the mean of an item's code embeddings, one residual block per digit,
    the mean of the digits' cross-entropies (cosine / temperature against the code embeddings),
    AdamW with warm-up and cosine decay. Different: every item is scored, which the released
    graph-constrained decoding approximates; OPQ is fitted on every item's text, not on training
    items only; the text embedding is the data set's, where the released default is OpenAI's
    text-embedding-3-large; biases of the residual blocks start at zero (there as nn.Linear's do);
    GELU is exact (there GPT-2's approximation); the last 20 items (there 50). Different by default,
    as in all measured rows: the width, code embeddings sqrt(32) times larger at the start
    (``code_scale``), no dropout on attention weights. ``RPG.paper.yaml`` has the released values.
    """

    settings_class = RPGSettings
    input_norm = False  # as in GPT-2

    def __init__(self, config: RunConfig, dataset: ItemDataset) -> None:
        super().__init__(config, dataset)
        hidden = self.settings.hidden_size
        # Residual block of digit d: h + SiLU(h W_d + b_d); zero at first, so all digits are equal.
        self.head_weight = nn.Parameter(torch.zeros(self.item_codes.digits, hidden, hidden))
        self.head_bias = nn.Parameter(torch.zeros(self.item_codes.digits, 1, hidden))

    def digit_log_probabilities(self, states: Tensor) -> Tensor:
        """Return the log-probability of each digit's codes: states [P, H] -> float32 [M, P, K]."""
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
        self.item_codes.rows()  # make the codes on first use
        codes = self.item_codes.codes[targets].T.unsqueeze(-1)  # [M, P, 1]
        return -log_probabilities.gather(2, codes).squeeze(-1).mean(0)

    def item_logits(self, states: Tensor) -> Tensor:
        """Return the exact log-probability of every item: the sum over its digits' codes."""
        rows = self.item_codes.rows()[1:]  # [n_items - 1, M]
        parts = []
        for part in self.digit_log_probabilities(states).split(_STATES, 1):  # [M, p, K]
            # One row per (digit, code), one column per state: a sum of rows is then contiguous.
            table = part.transpose(1, 2).flatten(0, 1).contiguous()  # [M * K, p]
            parts.append(F.embedding_bag(rows, table, mode="sum").T)  # [p, n_items - 1]
        return torch.cat(parts)  # [P, n_items - 1]
