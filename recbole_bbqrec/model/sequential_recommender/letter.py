"""LETTER (as LETTER-TIGER): learnable semantic IDs and the ranking-guided generation loss."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from recbole_bbqrec.data.features import load_modality
from recbole_bbqrec.data.histories import Histories, HistoryBatches
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.generator.batch.encoded_history import Memory
from recbole_bbqrec.generator.network.seq2seq import Generator
from recbole_bbqrec.generator.settings import GeneratorSettings
from recbole_bbqrec.model.base.checks import require_divisible
from recbole_bbqrec.model.sequential_recommender.tiger import TIGER
from recbole_bbqrec.protocols import ItemDataset, RunConfig
from recbole_bbqrec.tokenizer.rqvae.collaborative import NextItemModel, fit_item_embeddings
from recbole_bbqrec.tokenizer.rqvae.letter import LETTERSettings, LETTERTokenizer

_CF_BATCH = 256  # histories a step of the collaborative model


class RankingGuidedGenerator(Generator):
    """Generator trained on logits divided by a temperature; it generates with them as they are.

    A temperature below one puts the weight of the loss on the negatives that rank highest
    (LETTER, section 3.3).
    """

    def __init__(self, config: GeneratorSettings, temperature: float) -> None:
        super().__init__(config)
        self.temperature = temperature

    def logits(self, memory: Memory, hidden: torch.Tensor, level: int) -> torch.Tensor:
        logits = super().logits(memory, hidden, level)
        return logits / self.temperature if self.training else logits


class LETTER(TIGER):
    """TIGER with behaviour and code diversity in the tokenizer, and a tempered loss.

    Reference: Wang et al., "Learnable Item Tokenization for Generative Recommendation", CIKM
    2024. As there: four codebooks of 256, alignment by dot product with a SASRec's item
    embeddings, ten clusters of codes with bounded sizes, collisions re-assigned at the last
    level, temperature 1 of the ranking-guided loss. Different: re-assignment is greedy by
    distance (there: up to twenty rounds of Sinkhorn, after which items may still collide), only
    items of the training histories are aligned, widths and epochs of the tokenizer and the
    generator are those of :class:`TIGER` (there: a T5 whose softmax spans its 32,000 words, and
    colliding items count as hits). The tokenizer's own differences stand in its module.
    """

    tokenizer_class = LETTERTokenizer
    tokenizer_config_class = LETTERSettings

    @classmethod
    def check_options(cls, config: RunConfig) -> None:
        super().check_options(config)
        require_divisible(config, "sequence_hidden_size", "sequence_heads")
        if 2 * config["diversity_clusters"] > config["codebook_size"]:
            raise UserError(
                f"Option `diversity_clusters` is {config['diversity_clusters']}; expected at most "
                f"half of `codebook_size`, which is {config['codebook_size']}: every code needs "
                "another one in its cluster."
            )
        path = config["cf_embedding_path"]
        if path is not None and len(Path(path).name.split(".")) != 3:
            raise UserError(
                f"Option `cf_embedding_path` is {path!r}; expected a file <Dataset>.<name>.npy "
                "with <Dataset>.<name>.items.txt beside it, such as Beauty.cf.npy."
            )

    def build_generator(self, config: RunConfig, settings: GeneratorSettings) -> Generator:
        return RankingGuidedGenerator(settings, config["generation_temperature"])

    @classmethod
    def tokenizer_settings(cls, config: RunConfig) -> dict[str, Any]:
        return {
            **super().tokenizer_settings(config),
            "alignment_weight": config["alignment_weight"],
            "diversity_weight": config["diversity_weight"],
            "diversity_clusters": config["diversity_clusters"],
        }

    def tokenizer_inputs(
        self, config: RunConfig, dataset: ItemDataset, trained_items: torch.Tensor
    ) -> tuple[torch.Tensor, Callable[[torch.device], torch.Tensor]]:
        """Which items have behaviour embeddings bool [n_items], and how to make them."""
        if config["cf_embedding_path"] is None:
            return trained_items, lambda device: _train(config, dataset, self.n_items, device)
        path = Path(config["cf_embedding_path"])
        stem, name, _ = path.name.split(".")
        loaded = load_modality(
            path.parent, stem, name, dataset.item_tokens, expected_dim=config["codebook_dim"]
        )
        return loaded.present, lambda device: loaded.matrix.float().to(device)


def _train(
    config: RunConfig, dataset: ItemDataset, n_items: int, device: torch.device
) -> torch.Tensor:
    """Item embeddings float32 [n_items, D] of a SASRec on the training histories."""
    batches = HistoryBatches(
        Histories.from_training_data(dataset),
        batch_size=_CF_BATCH,
        max_length=config["MAX_ITEM_LIST_LENGTH"],
        encoding="causal",
        unit="histories",
        seed=config["seed"],
    )
    model = NextItemModel(
        n_items,
        config["codebook_dim"],
        hidden=config["sequence_hidden_size"],
        layers=config["sequence_layers"],
        heads=config["sequence_heads"],
        max_history=config["MAX_ITEM_LIST_LENGTH"],
        dropout=config["sequence_dropout"],
    ).to(device)
    return fit_item_embeddings(
        model,
        batches,
        epochs=config["cf_epochs"],
        learning_rate=config["tokenizer_learning_rate"],
    )
