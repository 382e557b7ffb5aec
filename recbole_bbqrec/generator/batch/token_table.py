"""Projected codes, which the tokens of a batch are looked up in."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class TokenTable(NamedTuple):
    """Projected embeddings of all codes, computed once a step; tokens are sums of its rows.

    * ``rows``: [M, L * N, d].
    * ``offsets``: int64 [L, M], added to a level's codes to get their rows in the flattened table.
    * ``dtype``: the dtype in which rows are added. Autocast may have made bfloat16 of the rows,
      but sums stay in the dtype of the parameters.
    """

    rows: Tensor
    offsets: Tensor
    dtype: torch.dtype

    def embed(self, codes: Tensor, first_level: int = 0) -> Tensor:
        """Embed tokens of ``l`` levels from ``first_level`` on: int64 [n, l, M] -> [n, l, d]."""
        n, levels, _ = codes.shape
        rows = codes + self.offsets[first_level : first_level + levels]  # [n, l, M]
        flat = self.rows.flatten(0, 1).to(self.dtype)
        return F.embedding_bag(rows.flatten(0, 1), flat, mode="sum").view(n, levels, -1)

    def output_weight(self, level: int) -> Tensor:
        """Return the projected codes of one level as output weights: [M * N, d]."""
        size = self.rows.shape[1] // len(self.offsets)
        return self.rows[:, level * size : (level + 1) * size].flatten(0, 1)
