"""The encoder: a transformer over the items of a history (Eq. 14-17)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from recbole_bbqrec.generator.batch.encoded_history import Memory
from recbole_bbqrec.generator.batch.packing import Packing
from recbole_bbqrec.generator.items.catalogue import Catalogue
from recbole_bbqrec.generator.network.attention import history_bias, similarity_buckets
from recbole_bbqrec.generator.network.embedding import (
    FeatureMap,
    ItemEmbedding,
    NoFeatures,
    NoItemEmbedding,
    PositionEmbedding,
    TokenEmbedding,
)
from recbole_bbqrec.generator.network.layers import EncoderLayer
from recbole_bbqrec.generator.settings import GeneratorSettings
from recbole_bbqrec.nn.dropout import Dropout


class HistoryEncoder(nn.Module):
    """Reads the semantic IDs, embeddings and features of a history's items."""

    def __init__(self, config: GeneratorSettings) -> None:
        super().__init__()
        self.config = config
        d = config.hidden_size
        self.tokens = TokenEmbedding(config)
        self.position = PositionEmbedding(config)
        self.level = nn.Parameter(torch.empty(config.history_levels, d))
        self.items: ItemEmbedding | NoItemEmbedding
        self.items = ItemEmbedding(config) if config.item_embedding else NoItemEmbedding()
        self.features: FeatureMap | NoFeatures
        self.features = FeatureMap(config) if config.feature_dim else NoFeatures()
        self.layers = cast(
            "Sequence[EncoderLayer]",
            nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers)),
        )
        # Normalise, or the first layer's output would drown the small embeddings.
        self.input_norm = nn.LayerNorm(d)
        self.norm = nn.LayerNorm(d)
        self.dropout = Dropout(config.dropout)

    def forward(self, catalogue: Catalogue, items: Tensor, cells: Packing | None = None) -> Memory:
        """Encode histories ``items`` int64 [B, T], right padded with 0 and none of them empty.

        ``cells``: those that hold an item; a device is asked for them if they are not given. They
        are trusted: :mod:`~recbole_bbqrec.generator.batch.checks` looks at them where they
        come in.
        """
        valid = items != 0  # [B, T]
        cells = Packing(valid) if cells is None else cells
        packed = cells.pack(items)  # [n]
        table = self.tokens.project()
        x = table.embed(catalogue.codes[packed])  # [n, L, d]
        if self.config.history_tokens == "item":
            x = x.sum(1, keepdim=True)
        x = x + self.item_inputs(catalogue, packed).unsqueeze(1)
        position = cells.pack(self.position.of(valid)).unsqueeze(1)
        x = x + self.level
        if self.config.norm_positions:
            x = self.input_norm(x + position)
        else:  # as in ESASRec; not measured by itself (docs/findings.md)
            x = self.input_norm(x) + position
        x = self.dropout(x)
        causal = self.config.history_encoding == "causal"
        bias = history_bias(valid, self.config.history_levels, causal, x.dtype)
        buckets = self.buckets(catalogue, items)
        for layer in self.layers:
            x = layer(x, cells, bias, buckets)
        return Memory(self.norm(x), cells, items, valid.sum(1), table)

    def item_inputs(self, catalogue: Catalogue, items: Tensor) -> Tensor:
        """Return what is read of ``items`` int64 [n] beside their codes: [n, d], or zeros [n, 1].

        Raises ValueError when the catalogue lacks the features that the network was built for.
        """
        own: Tensor = self.items(items) + self.features.of(catalogue, items)
        return own.expand(len(items), -1)

    def buckets(self, catalogue: Catalogue, items: Tensor) -> Tensor | None:
        """Return the similarity bucket of every pair in a history: int64 [B, T, T].

        None without the similarity module. Raises ValueError when the catalogue has no vectors.
        """
        if not self.config.similarity:
            return None
        if catalogue.vectors is None:
            raise ValueError("the similarity module needs item vectors; the catalogue has none")
        return similarity_buckets(catalogue.vectors[items], self.config.similarity_buckets)
