"""TIGER: RQ-VAE semantic IDs of the text, and the generator without similarity module."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.generator.settings import GeneratorSettings
from recbole_bbqrec.model.base.checks import require_modality
from recbole_bbqrec.model.base.generative import GenerativeRecommender
from recbole_bbqrec.protocols import ItemDataset, RunConfig
from recbole_bbqrec.tokenizer.base import Tokenization
from recbole_bbqrec.tokenizer.disambiguation import append_disambiguation
from recbole_bbqrec.tokenizer.rqvae.rqvae import RQVAESettings, RQVAETokenizer


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
    tokenizer_config_class: type[RQVAESettings] = RQVAESettings
    use_similarity = False

    @classmethod
    def signals_of(cls, config: RunConfig) -> tuple[str, ...]:
        return (config["tokenizer_modality"],)

    @classmethod
    def check_options(cls, config: RunConfig) -> None:
        super().check_options(config)
        require_modality(config, cls.__name__, config["tokenizer_modality"])
        if isinstance(config["commitment_weight"], dict):
            raise UserError(
                f"Option `commitment_weight` is {config['commitment_weight']!r}; {cls.__name__} "
                "has one signal and expects one number."
            )
        if config["disambiguation"] == "token" and config["codebook_levels"] < 2:
            raise UserError(
                f"Option `codebook_levels` is {config['codebook_levels']}; expected at least 2: "
                "with `disambiguation: token` the last level is the disambiguation token."
            )

    @classmethod
    def quantized_levels(cls, config: RunConfig) -> int:
        """Levels of the residual quantizer: all but the disambiguation token, if there is one."""
        return config["codebook_levels"] - (config["disambiguation"] == "token")

    @classmethod
    def make_unique(cls, config: RunConfig, result: Tokenization) -> Tokenization:
        if config["disambiguation"] == "token":
            return append_disambiguation(result)
        return super().make_unique(config, result)

    def generator_config(self, config: RunConfig, n_signals: int, width: int) -> GeneratorSettings:
        """BBQRec's generator with code embeddings as wide as the model, as a T5 has them."""
        settings = super().generator_config(config, n_signals, width)
        return replace(settings, code_dim=config["hidden_size"])

    def build_tokenizer(
        self, config: RunConfig, dataset: ItemDataset, trained_items: torch.Tensor
    ) -> RQVAETokenizer:
        features = dataset.item_features(config["tokenizer_modality"])
        settings = self.tokenizer_config_class(**self.tokenizer_settings(config))
        more = self.tokenizer_inputs(config, dataset, trained_items)
        return self.tokenizer_class(
            settings, features.name, features.matrix, features.present, *more
        )

    # what a subclass with another RQ-VAE decides ---------------------------------------------

    def tokenizer_inputs(
        self, config: RunConfig, dataset: ItemDataset, trained_items: torch.Tensor
    ) -> tuple[Any, ...]:
        """What ``tokenizer_class`` takes behind the features: nothing."""
        return ()

    @classmethod
    def tokenizer_settings(cls, config: RunConfig) -> dict[str, Any]:
        """The fields of ``tokenizer_config_class``."""
        return {
            "levels": cls.quantized_levels(config),
            "codebook_size": config["codebook_size"],
            "codebook_dim": config["codebook_dim"],
            "commitment_weight": config["commitment_weight"],
            "encoder_hidden": tuple(config["encoder_hidden"]),
            "dropout": config["encoder_dropout"],
            "recon_reduction": config["recon_reduction"],
            "feature_scaling": config["feature_scaling"],
        }
