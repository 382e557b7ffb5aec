"""Learned embeddings: composite tokens, items and their features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_bbqrec.generator.batch.token_table import TokenTable
from recbole_bbqrec.generator.items.catalogue import Catalogue
from recbole_bbqrec.generator.settings import GeneratorSettings


class TokenEmbedding(nn.Module):
    """Embeds the M codes of one token: concatenation (or sum), then a linear map to d.

    A linear map of a concatenation is a sum of linear maps, one for each code. So the code tables
    are projected once a step, and tokens only gather and add projected rows: the same numbers
    with far fewer rows to multiply.
    """

    offsets: Tensor

    def __init__(self, config: GeneratorSettings) -> None:
        super().__init__()
        # One embedding per (signal, level, code), learned from random values.
        self.codes = nn.Parameter(
            torch.empty(config.n_signals, config.levels, config.codebook_size, config.code_dim)
        )
        nn.init.normal_(self.codes, 0.0, config.initializer_range)
        maps = config.n_signals if config.token_fusion == "concat" else 1  # "sum" shares one map
        self.weight = nn.Parameter(torch.empty(maps, config.code_dim, config.hidden_size))
        # Keeps the scale: the fan-in of the concatenation is maps * code_dim.
        nn.init.normal_(self.weight, 0.0, (maps * config.code_dim) ** -0.5)
        signal, level = torch.arange(config.n_signals), torch.arange(config.levels)
        offsets = (signal * config.levels + level[:, None]) * config.codebook_size  # [L, M]
        self.register_buffer("offsets", offsets, persistent=False)

    @torch.no_grad()
    def load_codes(self, vectors: Tensor) -> None:
        """Start from phase-one code vectors, [L, N, D] (shared) or [M, L, N, D] (per signal).

        Raises ValueError when the shape does not fit.
        """
        shape = tuple(self.codes.shape)
        if tuple(vectors.shape) not in (shape, shape[1:]):
            raise ValueError(
                f"code vectors of shape {tuple(vectors.shape)}: expected {shape[1:]} or {shape}"
            )
        self.codes.copy_(vectors.expand_as(self.codes))

    def project(self) -> TokenTable:
        """Map all codes: a shared map ("sum") is broadcast over the signals."""
        return TokenTable(self.codes.flatten(1, 2) @ self.weight, self.offsets, self.codes.dtype)


class ItemEmbedding(nn.Embedding):
    """Embeddings e of the items, [n_items, d]."""

    def __init__(self, config: GeneratorSettings) -> None:
        super().__init__(config.n_items, config.hidden_size)

    def add_to(self, x: Tensor, items: Tensor) -> Tensor:
        """Return ``x`` [n, d] plus the embeddings of ``items`` int64 [n]."""
        return self.weight.index_select(0, items) + x


class PositionEmbedding(nn.Embedding):
    """Embeddings of the places in a history, [max_history, d].

    Places count from the first item, or from the last. Without a causal mask only the second
    tells a decoder that starts from a token which item is the last.
    """

    def __init__(self, config: GeneratorSettings) -> None:
        super().__init__(config.max_history, config.hidden_size)
        self.from_last = config.from_last

    def of(self, valid: Tensor) -> Tensor:
        """Return the embeddings of a grid of right-padded histories: bool [B, T] -> [B, T, d]."""
        return positions_of(self.weight, valid, self.from_last)


def positions_of(table: Tensor, valid: Tensor, from_last: bool) -> Tensor:
    """Look up places of right-padded histories: [max_history, d], bool [B, T] -> [B, T, d].

    >>> table = torch.tensor([[0.0], [1.0], [2.0]])
    >>> valid = torch.tensor([[True, True, True], [True, True, False]])
    >>> positions_of(table, valid, from_last=False).squeeze(-1).tolist()
    [[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]]
    >>> positions_of(table, valid, from_last=True).squeeze(-1).tolist()
    [[2.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    """
    if not from_last:
        return table[: valid.shape[1]].expand(*valid.shape, -1)
    place = torch.arange(1, valid.shape[1] + 1, device=valid.device)
    return F.embedding((valid.sum(1, keepdim=True) - place).clamp(min=0), table)


class NoItemEmbedding(nn.Module):
    """Stands in for :class:`ItemEmbedding`; every embedding is zero."""

    zero: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("zero", torch.zeros(1, 1), persistent=False)

    def forward(self, items: Tensor) -> Tensor:
        """Return a zero of shape [1, 1]."""
        return self.zero

    def add_to(self, x: Tensor, items: Tensor) -> Tensor:
        """Return ``x``."""
        return x


class FeatureMap(nn.Linear):
    """Maps the features of items to the encoder's width: [n, F] -> [n, d]."""

    def __init__(self, config: GeneratorSettings) -> None:
        super().__init__(config.feature_dim, config.hidden_size, bias=False)

    def of(self, catalogue: Catalogue, items: Tensor) -> Tensor:
        """Map the features of ``items`` int64 [n]: [n, d].

        Raises ValueError when the catalogue has none.
        """
        if catalogue.features is None:
            raise ValueError("the generator reads item features; the catalogue has none")
        mapped: Tensor = self(catalogue.features[items])
        return mapped


class NoFeatures(NoItemEmbedding):
    """Stands in for :class:`FeatureMap`; nothing is read of any features."""

    def of(self, catalogue: Catalogue, items: Tensor) -> Tensor:
        """Return a zero of shape [1, 1]."""
        return self.zero
