"""LETTER (as LETTER-TIGER): learnable semantic IDs and the ranking-guided generation loss."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from recbole_bbqrec.data.features import load_modality
from recbole_bbqrec.data.histories import Histories, HistoryBatches
from recbole_bbqrec.generator.batch.encoded_history import Memory
from recbole_bbqrec.generator.network.seq2seq import Generator
from recbole_bbqrec.generator.settings import GeneratorSettings
from recbole_bbqrec.model.sequential_recommender.tiger import TIGER
from recbole_bbqrec.model.settings import LETTERGenerationSettings
from recbole_bbqrec.protocols import ItemDataset, RunConfig
from recbole_bbqrec.settings import read
from recbole_bbqrec.tokenizer.rqvae.collaborative import NextItemModel, fit_item_embeddings
from recbole_bbqrec.tokenizer.rqvae.letter import LETTERTokenizer
from recbole_bbqrec.tokenizer.rqvae.settings import CollaborativeSettings, LETTERSettings

_CF_BATCH = 256  # histories per step of the collaborative model


class RankingGuidedGenerator(Generator):
    """Generator that divides its logits by a temperature in training, not in decoding.

    A temperature below one shifts the loss to the negatives that rank highest (LETTER, section
    3.3).
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
    tokenizer_settings_class = LETTERSettings

    @classmethod
    def check_options(cls, config: RunConfig) -> None:
        super().check_options(config)
        read(CollaborativeSettings, config)

    def build_generator(self, config: RunConfig, settings: GeneratorSettings) -> Generator:
        temperature = read(LETTERGenerationSettings, config).generation_temperature
        return RankingGuidedGenerator(settings, temperature)

    def tokenizer_inputs(
        self, config: RunConfig, dataset: ItemDataset, trained_items: torch.Tensor
    ) -> tuple[torch.Tensor, Callable[[torch.device], torch.Tensor]]:
        """Return which items have behaviour embeddings, bool [n_items], and their maker."""
        settings = read(CollaborativeSettings, config)
        if settings.cf_embedding_path is None:
            seed = config["seed"]
            return trained_items, lambda device: _train(settings, dataset, seed, device)
        path = Path(settings.cf_embedding_path)
        stem, name, _ = path.name.split(".")
        loaded = load_modality(
            path.parent, stem, name, dataset.item_tokens, expected_dim=settings.embedding_dim
        )
        return loaded.present, lambda device: loaded.matrix.float().to(device)


def _train(
    settings: CollaborativeSettings, dataset: ItemDataset, seed: int, device: torch.device
) -> torch.Tensor:
    """Train a SASRec on the training histories; return its item embeddings float32 [n_items, D]."""
    batches = HistoryBatches(
        Histories.from_training_data(dataset),
        batch_size=_CF_BATCH,
        max_length=settings.max_history,
        encoding="causal",
        unit="histories",
        seed=seed,
    )
    model = NextItemModel(
        dataset.item_num,
        settings.embedding_dim,
        hidden=settings.sequence_hidden_size,
        layers=settings.sequence_layers,
        heads=settings.sequence_heads,
        max_history=settings.max_history,
        dropout=settings.sequence_dropout,
    ).to(device)
    return fit_item_embeddings(
        model, batches, epochs=settings.cf_epochs, learning_rate=settings.learning_rate
    )
