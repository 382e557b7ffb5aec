"""VQ-Rec: items as product-quantized text codes (a baseline of the paper, 5.1)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from recbole_bbqrec.model.parts.item_codes import CodeRecommender


class VQRec(CodeRecommender):
    """An item is the mean of the learned embeddings of its text's OPQ codes; no item IDs.

    Reference: Hou et al., "Learning Vector-Quantized Item Representation for Transferable
    Sequential Recommenders", WWW 2023. The same: OPQ codes of the text embedding, mean pooling,
    a SASRec-style encoder, cross-entropy over all items of cosine / temperature. Different: no
    pre-training on other domains (as in BBQRec's table), pre-norm layers, all prefixes of a user
    trained in one causal pass, OPQ fitted on every item's text, not on training items only, and
    [PAD] no candidate of the soft-max (there it is one). Different by default, as in all measured
    rows: code embeddings sqrt(32) times larger at the start, so that their mean has the usual
    deviation (``code_scale``), positions added after the input norm, where the tiny means do not
    drown in them (``norm_positions``), no dropout on attention weights (``attention_dropout``),
    and the width. ``VQRec.paper.yaml`` has the released values.

    The released trainer fine-tunes a pre-trained model: it learns a permutation of the codes for
    five epochs and then trains the code embeddings alone, the encoder frozen. Started without a
    pre-trained model it would freeze a random encoder. Here all parameters train from the start.
    Its in-batch contrastive loss, which counts a repeated target as a negative of logit zero,
    belongs to pre-training and is not used.
    """

    def item_logits(self, states: Tensor) -> Tensor:
        vectors = F.normalize(self.item_codes.item_vectors()[1:], dim=-1)  # [n_items - 1, H]
        scaled = F.normalize(states, dim=-1) / self.temperature  # [P, H], smaller than the logits
        return scaled @ vectors.to(states.dtype).T
