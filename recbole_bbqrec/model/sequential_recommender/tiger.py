"""TIGER: RQ-VAE semantic IDs of the text, and the generator without similarity module."""

from __future__ import annotations

from typing import Any

import torch

from recbole_bbqrec.generator.settings import GeneratorSettings
from recbole_bbqrec.model.base.checks import require_modality
from recbole_bbqrec.model.base.generative import GenerativeRecommender
from recbole_bbqrec.model.settings import TIGERSettings
from recbole_bbqrec.protocols import ItemDataset, RunConfig
from recbole_bbqrec.settings import read
from recbole_bbqrec.tokenizer.base import Tokenization
from recbole_bbqrec.tokenizer.disambiguation import append_disambiguation
from recbole_bbqrec.tokenizer.rqvae.cost import CoSTTokenizer
from recbole_bbqrec.tokenizer.rqvae.rqvae import RQVAETokenizer
from recbole_bbqrec.tokenizer.rqvae.settings import CoSTSettings, RQVAESettings


class TIGER(GenerativeRecommender):
    """Semantic IDs of one modality, made without behaviour.

    Reference: Rajput et al., "Recommender Systems with Generative Retrieval", NeurIPS 2023.
    As there: RQ-VAE 512-256-128 -> 32, three codebooks of 256, a fourth token that separates
    items sharing the first three. Different: the generator is BBQRec's (two layers each way where
    the T5 there has four, causal over the history, the last item's states in the decoder's
    inputs, constrained to existing items), there is no user token, inputs are standardised,
    codebooks start from k-means on all items (there: on the first batch), dead codes are
    restarted, and the RQ-VAE trains for hundreds, not thousands, of epochs.
    """

    tokenizer_class: type[RQVAETokenizer] = RQVAETokenizer
    tokenizer_settings_class: type[RQVAESettings] = RQVAESettings
    use_similarity = False

    @classmethod
    def signals_of(cls, config: RunConfig) -> tuple[str, ...]:
        return (config["tokenizer_modality"],)

    @classmethod
    def check_options(cls, config: RunConfig) -> None:
        super().check_options(config)
        require_modality(config, cls.__name__, config["tokenizer_modality"])

    @classmethod
    def tokenizer_settings(cls, config: RunConfig) -> RQVAESettings:
        levels = read(TIGERSettings, config).quantized_levels
        return read(cls.tokenizer_settings_class, config, levels=levels)

    @classmethod
    def make_unique(cls, config: RunConfig, result: Tokenization) -> Tokenization:
        if config["disambiguation"] == "token":
            return append_disambiguation(result)
        return super().make_unique(config, result)

    @classmethod
    def generator_settings(cls, config: RunConfig, n_items: int, **given: Any) -> GeneratorSettings:
        """Read BBQRec's settings, with code embeddings as wide as the model, as in a T5."""
        given = {"code_dim": config["hidden_size"], **given}
        return super().generator_settings(config, n_items, **given)

    def build_tokenizer(
        self, config: RunConfig, dataset: ItemDataset, trained_items: torch.Tensor
    ) -> RQVAETokenizer:
        features = dataset.item_features(config["tokenizer_modality"])
        settings = self.tokenizer_settings(config)
        more = self.tokenizer_inputs(config, dataset, trained_items)
        return self.tokenizer_class(
            settings, features.name, features.matrix, features.present, *more
        )

    # hook of a subclass with another RQ-VAE --------------------------------------------------

    def tokenizer_inputs(
        self, config: RunConfig, dataset: ItemDataset, trained_items: torch.Tensor
    ) -> tuple[Any, ...]:
        """Return further arguments of ``tokenizer_class``, after the features."""
        return ()


class CoST(TIGER):
    """TIGER whose tokenizer contrasts decoded and input embeddings instead of reconstructing.

    Reference: Zhu et al., "CoST: Contrastive Quantization based Semantic Tokenization for
    Generative Recommendation", RecSys 2024. As there: a contrastive loss, which wants a decoded
    vector closer to its own input than to the batch's others, takes the place of RQ-VAE's squared
    error. No code of it was found, so the similarity (cosine), its temperature and the weights
    are choices made here; items with identical text are not each other's negatives. Otherwise as
    :class:`TIGER`.
    """

    tokenizer_class = CoSTTokenizer
    tokenizer_settings_class = CoSTSettings
