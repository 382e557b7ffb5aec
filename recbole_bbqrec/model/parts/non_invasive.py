"""Non-invasive self-attention: side information enters queries and keys, never the values.

Liu et al., "Non-invasive Self-attention for Side Information Fusion in Sequential
Recommendation", AAAI 2021 (NOVA).
"""

from __future__ import annotations

import torch
from recbole.model.layers import FeedForward, MultiHeadAttention
from torch import Tensor, nn

FUSIONS = ("add", "concat", "gate")


class SideFusion(nn.Module):
    """Fuse an item's state and its S side vectors into one vector for queries and keys.

    ``add``: their sum. ``concat``: a linear map of the concatenation. ``gate``: a weighted sum
    with weights that depend on the vectors.
    """

    def __init__(self, hidden: int, n_sides: int, fusion: str) -> None:
        super().__init__()
        if fusion not in FUSIONS:
            raise ValueError(f"nova_fusion must be one of {FUSIONS}, got {fusion!r}")
        self.fusion = fusion
        if fusion == "concat":
            self.mix = nn.Linear((n_sides + 1) * hidden, hidden)
        elif fusion == "gate":
            self.gate = nn.Linear(hidden, 1)

    def forward(self, x: Tensor, sides: Tensor) -> Tensor:
        """x [B, T, H], sides [B, T, S, H] -> [B, T, H]."""
        sources = torch.cat([x.unsqueeze(2), sides], dim=2)  # [B, T, S + 1, H]
        if self.fusion == "concat":
            return self.mix(sources.flatten(2))
        if self.fusion == "gate":
            sources = sources * self.gate(sources).softmax(2)  # weights [B, T, S + 1, 1]
        return sources.sum(2)


class NonInvasiveAttention(MultiHeadAttention):
    """RecBole's post-norm attention with queries and keys from :class:`SideFusion`."""

    def __init__(self, fuse: SideFusion, *sizes: float) -> None:
        super().__init__(*sizes)
        self.fuse = fuse

    def forward(self, x: Tensor, sides: Tensor, mask: Tensor) -> Tensor:
        """x [B, T, H], sides [B, T, S, H], additive mask [B, 1, 1, T] -> [B, T, H]."""
        fused = self.fuse(x, sides)
        query, key, value = (
            self.transpose_for_scores(part).transpose(1, 2)  # [B, heads, T, H / heads]
            for part in (self.query(fused), self.key(fused), self.value(x))
        )
        scores = query @ key.transpose(-1, -2) / self.sqrt_attention_head_size + mask
        weights = self.attn_dropout(scores.softmax(-1))  # [B, heads, T, T]
        mixed = (weights @ value).transpose(1, 2).reshape(x.shape)  # [B, T, H]
        return self.LayerNorm(self.out_dropout(self.dense(mixed)) + x)


class NonInvasiveEncoder(nn.Module):
    """Layers of :class:`NonInvasiveAttention`; all see the same side information."""

    def __init__(
        self,
        n_layers: int,
        n_sides: int,
        fusion: str,
        *,
        hidden: int,
        inner: int,
        heads: int,
        hidden_dropout: float,
        attention_dropout: float,
        activation: str,
        eps: float,
    ) -> None:
        super().__init__()
        self.attentions = nn.ModuleList(
            NonInvasiveAttention(
                SideFusion(hidden, n_sides, fusion),
                heads, hidden, hidden_dropout, attention_dropout, eps,
            )
            for _ in range(n_layers)
        )  # fmt: skip
        self.feeds = nn.ModuleList(
            FeedForward(hidden, inner, hidden_dropout, activation, eps) for _ in range(n_layers)
        )

    def forward(self, x: Tensor, sides: Tensor, mask: Tensor) -> Tensor:
        """x [B, T, H], sides [B, T, S, H], additive mask [B, 1, 1, T] -> [B, T, H]."""
        for attention, feed in zip(self.attentions, self.feeds):
            x = feed(attention(x, sides, mask))
        return x
