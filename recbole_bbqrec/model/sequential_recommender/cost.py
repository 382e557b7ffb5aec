"""CoST: TIGER with semantic IDs learned by contrast."""

from __future__ import annotations

from recbole_bbqrec.model.sequential_recommender.tiger import TIGER
from recbole_bbqrec.tokenizer.rqvae.cost import CoSTTokenizer
from recbole_bbqrec.tokenizer.rqvae.settings import CoSTSettings


class CoST(TIGER):
    """TIGER whose tokenizer contrasts decoded and input embeddings instead of reconstructing.

    Reference: Zhu et al., "CoST: Contrastive Quantization based Semantic Tokenization for
    Generative Recommendation", RecSys 2024. As there: a contrastive loss, which wants a decoded
    vector closer to its own input than to the batch's others, takes the place of RQ-VAE's squared
    error. No code of it was found, so the similarity (cosine), its temperature and the weights
    are choices made here; items with identical text are not each other's negatives. Otherwise as
    :class:`TIGER`.
    """

    properties_base = "TIGER"
    tokenizer_class = CoSTTokenizer
    tokenizer_settings_class = CoSTSettings
