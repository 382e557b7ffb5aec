"""BBQRec (the paper's sections 4.1 and 4.2): RecBole adapter of both phases."""

from __future__ import annotations

from dataclasses import replace

import torch

from recbole_bbqrec.data.histories import Histories
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.generator.items.neighbour_bonus import Neighbours
from recbole_bbqrec.generator.settings import GeneratorSettings
from recbole_bbqrec.model.base.generative import GenerativeRecommender
from recbole_bbqrec.model.parts.item_features import configured_features
from recbole_bbqrec.model.parts.neighbour_graph import configured_neighbours
from recbole_bbqrec.protocols import ID_SIGNAL, ItemDataset, RunConfig
from recbole_bbqrec.tokenizer.bbq.settings import BBQSettings
from recbole_bbqrec.tokenizer.bbq.tokenizer import BBQTokenizer


class BBQRec(GenerativeRecommender):
    """Behaviour-bind quantization and similarity-enhanced generation.

    Variants of the paper override the class attributes. Reference: Li et al., "BBQRec:
    Behavior-Bind Quantization for Multi-Modal Sequential Recommendation", 2025.
    """

    use_id = True
    use_mim = True
    use_contrastive = True
    share_codebook = True
    left_out: tuple[str, ...] = ()  # modalities that the variant removes

    @classmethod
    def tokenizer_name(cls) -> str:
        """BBQRec unless a loss or the codebook differs; other signals show in the file itself."""
        kept = (cls.use_mim, cls.use_contrastive, cls.share_codebook)
        return "BBQRec" if all(kept) else cls.__name__

    @classmethod
    def modalities_of(cls, config: RunConfig) -> tuple[str, ...]:
        """The configured modalities that this model uses."""
        return tuple(m for m in config["modalities"] or () if m not in cls.left_out)

    @classmethod
    def signals_of(cls, config: RunConfig) -> tuple[str, ...]:
        return ((ID_SIGNAL,) if cls.use_id else ()) + cls.modalities_of(config)

    @classmethod
    def check_options(cls, config: RunConfig) -> None:
        super().check_options(config)
        signals = cls.signals_of(config)
        if not signals:
            raise UserError(
                f"Option `modalities` is {config['modalities']!r}, which leaves {cls.__name__} "
                "without any signal; expected at least one modality that the model uses."
            )
        weights = config["commitment_weight"]
        if isinstance(weights, dict) and set(weights) != set(signals):
            raise UserError(
                f"Option `commitment_weight` names the signals {sorted(weights)}; expected exactly "
                f"{sorted(signals)}."
            )
        if config["sequence_hidden_size"] % config["sequence_heads"]:
            raise UserError(
                f"Option `sequence_hidden_size` is {config['sequence_hidden_size']}; expected a "
                f"multiple of `sequence_heads`, which is {config['sequence_heads']}."
            )

    def generator_config(self, config: RunConfig, n_signals: int, width: int) -> GeneratorSettings:
        settings = super().generator_config(config, n_signals, width)
        # A learned item embedding is an ID representation, too.
        return settings if self.use_id else replace(settings, item_embedding=False)

    def build_features(self, config: RunConfig, dataset: ItemDataset) -> list[torch.Tensor]:
        modalities = self.modalities_of(config) if config["item_features"] else ()
        return configured_features(config, dataset, modalities)

    def build_neighbours(
        self, config: RunConfig, dataset: ItemDataset, features: list[torch.Tensor]
    ) -> Neighbours | None:
        if not config["item_head"]:
            return None
        # Who chose an item is an ID representation, too.
        histories = Histories.from_training_data(dataset) if self.use_id else None
        return configured_neighbours(config, histories, features, self.n_items)

    def build_tokenizer(
        self, config: RunConfig, dataset: ItemDataset, trained_items: torch.Tensor
    ) -> BBQTokenizer:
        features = {}
        for name in self.modalities_of(config):
            modality = dataset.item_features(name)
            features[name] = (modality.matrix, modality.present)
        return BBQTokenizer(self.tokenizer_config(config), features, self.n_items, trained_items)

    def tokenizer_config(self, config: RunConfig) -> BBQSettings:
        """The phase-one network's configuration (paper, 4.1)."""
        return BBQSettings(
            levels=config["codebook_levels"],
            codebook_size=config["codebook_size"],
            codebook_dim=config["codebook_dim"],
            commitment_weight=config["commitment_weight"],
            contrastive_weight=config["contrastive_weight"],
            mim_weight=config["mim_weight"],
            temperature=config["temperature"],
            encoder_hidden=tuple(config["encoder_hidden"]),
            dropout=config["encoder_dropout"],
            use_id=self.use_id,
            use_mim=self.use_mim,
            use_contrastive=self.use_contrastive,
            share_codebook=self.share_codebook,
            sequence_encoder=config["sequence_encoder"],
            sequence_layers=config["sequence_layers"],
            sequence_heads=config["sequence_heads"],
            sequence_hidden_size=config["sequence_hidden_size"],
            sequence_dropout=config["sequence_dropout"],
            max_history=config["MAX_ITEM_LIST_LENGTH"],
            recon_reduction=config["recon_reduction"],
            feature_scaling=config["feature_scaling"],
        )
