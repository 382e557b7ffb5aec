"""Learned embeddings of composite tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_bbqrec.generator.settings import GeneratorSettings


class TokenEmbedding(nn.Module):
    """Embeds the M codes of one token: concatenation (or sum), then a linear map to d.

    A linear map of a concatenation is a sum of linear maps, one for each code. The N-row tables
    are therefore projected once per step and tokens only gather and add projected rows:
    mathematically the same, with far fewer rows to multiply.
    """

    def __init__(self, config: GeneratorSettings) -> None:
        super().__init__()
        self.levels, self.n_signals = config.levels, config.n_signals
        self.codebook_size = config.codebook_size
        # One embedding per (signal, level, code), learned from random values.
        self.codes = nn.Parameter(
            torch.empty(config.n_signals, config.levels, config.codebook_size, config.code_dim)
        )
        nn.init.normal_(self.codes, 0.0, config.initializer_range)
        maps = config.n_signals if config.token_fusion == "concat" else 1  # "sum" shares one map
        self.weight = nn.Parameter(torch.empty(maps, config.code_dim, config.hidden_size))
        # Keeps the scale: the fan-in of the concatenation is maps * code_dim.
        nn.init.normal_(self.weight, 0.0, (maps * config.code_dim) ** -0.5)

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

    def project(self) -> Tensor:
        """The table of projected codes: [M, L * N, d]."""
        return self.codes.flatten(1, 2) @ self.weight  # one shared map broadcasts

    def head_weight(self, table: Tensor, level: int) -> Tensor:
        """Projected codes of one level as output weights: [M * N, d]."""
        rows = slice(level * self.codebook_size, (level + 1) * self.codebook_size)
        return table[:, rows].flatten(0, 1)

    def forward(self, table: Tensor, codes: Tensor, first_level: int = 0) -> Tensor:
        """Embed tokens of the levels ``first_level`` .. ``first_level + l - 1``.

        ``codes`` int64 [n, l, M]; ``table`` as :meth:`project` gives it. Returns [n, l, d].
        """
        n, levels, signals = codes.shape
        level = torch.arange(first_level, first_level + levels, device=codes.device)[:, None]
        signal = torch.arange(signals, device=codes.device)
        rows = codes + (signal * self.levels + level) * self.codebook_size  # [n, l, M]
        # Rows are added here: not in bfloat16, whatever autocast made of the table.
        flat = table.flatten(0, 1).to(self.codes.dtype)
        return F.embedding_bag(rows.flatten(0, 1), flat, mode="sum").view(n, levels, -1)
