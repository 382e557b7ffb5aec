"""RecBole adapter of BBQRec (the paper's sections 4.1 and 4.2)."""

from __future__ import annotations

from typing import Any

import torch

from recbole_bbqrec.data.histories import Histories
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.generator.items.neighbour_bonus import Neighbours
from recbole_bbqrec.generator.settings import GeneratorSettings
from recbole_bbqrec.model.base.generative import GenerativeRecommender
from recbole_bbqrec.model.parts.item_features import item_features
from recbole_bbqrec.model.parts.neighbour_graph import weighted_neighbours
from recbole_bbqrec.model.settings import GeneratorFeatureSettings, NeighbourSettings
from recbole_bbqrec.protocols import ID_SIGNAL, ItemDataset, RunConfig
from recbole_bbqrec.settings import read
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
        """Return BBQRec unless a loss or the codebook differs; files state their signals."""
        kept = (cls.use_mim, cls.use_contrastive, cls.share_codebook)
        return "BBQRec" if all(kept) else cls.__name__

    @classmethod
    def modalities_of(cls, config: RunConfig) -> tuple[str, ...]:
        """Return the configured modalities that this model uses."""
        return tuple(m for m in config["modalities"] or () if m not in cls.left_out)

    @classmethod
    def signals_of(cls, config: RunConfig) -> tuple[str, ...]:
        return ((ID_SIGNAL,) if cls.use_id else ()) + cls.modalities_of(config)

    @classmethod
    def check_options(cls, config: RunConfig) -> None:
        signals = cls.signals_of(config)
        if not signals:
            raise UserError(
                f"Option `modalities` is {config['modalities']!r}, which leaves {cls.__name__} "
                "without any signal; expected at least one modality that the model uses."
            )
        super().check_options(config)
        weights = config["commitment_weight"]
        if isinstance(weights, dict) and set(weights) != set(signals):
            raise UserError(
                f"Option `commitment_weight` names the signals {sorted(weights)}; expected exactly "
                f"{sorted(signals)}."
            )

    @classmethod
    def tokenizer_settings(cls, config: RunConfig) -> BBQSettings:
        return read(
            BBQSettings,
            config,
            use_id=cls.use_id,
            use_mim=cls.use_mim,
            use_contrastive=cls.use_contrastive,
            share_codebook=cls.share_codebook,
        )

    @classmethod
    def generator_settings(cls, config: RunConfig, n_items: int, **given: Any) -> GeneratorSettings:
        # A learned item embedding is an ID representation, too.
        given = {"item_embedding": cls.use_id and config["item_embedding"], **given}
        return super().generator_settings(config, n_items, **given)

    def build_features(self, config: RunConfig, dataset: ItemDataset) -> list[torch.Tensor]:
        settings = read(GeneratorFeatureSettings, config)
        modalities = self.modalities_of(config) if settings.item_features else ()
        return item_features(dataset, modalities, settings)

    def build_neighbours(
        self, config: RunConfig, dataset: ItemDataset, features: list[torch.Tensor]
    ) -> Neighbours | None:
        if not config["item_head"]:
            return None
        # Co-occurrence is an ID representation, too.
        histories = Histories.from_training_data(dataset) if self.use_id else None
        settings = read(NeighbourSettings, config)
        return weighted_neighbours(settings, histories, features, self.n_items, dataset.added_items)

    def build_tokenizer(
        self, config: RunConfig, dataset: ItemDataset, trained_items: torch.Tensor
    ) -> BBQTokenizer:
        features = {}
        for name in self.modalities_of(config):
            modality = dataset.item_features(name)
            features[name] = (modality.matrix, modality.present)
        return BBQTokenizer(self.tokenizer_settings(config), features, self.n_items, trained_items)
