"""Plain and similarity-enhanced attention (Eq. 14-17).

Shapes: H heads of width C (hidden size d = H * C), T items of L tokens a history; token (i, k) is
row i * L + k. Attention probabilities are not dropped out: the residual branches are, and the
fused kernels are fastest without.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def similarity_buckets(vectors: Tensor, n_buckets: int) -> Tensor:
    """Bucket of the cosine of every pair of items (Eq. 14, 15).

    ``vectors``: [B, T, V] of unit length -> int64 [B, T, T] in 0 .. n_buckets, that is,
    round((cos + 1) / 2 * n_buckets) with halves to the even neighbour.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        cosine = vectors @ vectors.transpose(1, 2)  # [B, T, T]
        scaled = cosine.add_(1.0).mul_(n_buckets / 2).round_()
    return scaled.clamp_(0, n_buckets).long()


def split_heads(x: Tensor, n_heads: int) -> Tensor:
    """[B, S, H * C] -> [B, H, S, C]."""
    return x.unflatten(-1, (n_heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """[B, H, S, C] -> [B, S, H * C]."""
    return x.transpose(1, 2).flatten(2)


def blocking_bias(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where ``visible`` (bool, any shape) and a large negative number elsewhere.

    Finite, so that a row that sees nothing gives some average and not NaN; halved, so that
    adding a score cannot overflow.
    """
    bias = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return bias.masked_fill_(~visible, torch.finfo(dtype).min / 2)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Scaled dot-product attention: [B, H, S, C] against [B, H, K, C] -> [B, H, S, C].

    ``bias`` is added to the scores and broadcast to [B, H, S, K].
    """
    if q.device.type == "cpu":
        # Short sequences: plain matrix products match the fused CPU kernel in float32, and in
        # bfloat16 their backward pass is four times as fast.
        return _weights(q, k, bias).to(v.dtype) @ v
    if bias is not None:
        bias = bias.to(q.dtype)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


def _weights(q: Tensor, k: Tensor, bias: Tensor | None) -> Tensor:
    """Attention probabilities [B, H, S, K]."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if bias is not None:
        scores = scores.add_(bias.to(scores.dtype))
    return scores.softmax(-1)


def similarity_attend(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, gate: Tensor
) -> Tensor:
    """Self-attention whose values are scaled, per channel, by the item pair (Eq. 16, 17).

    ``q``, ``k``, ``v``: [B, H, T * L, C]; ``gate``: [B, H, T, T, C], indexed by the key's item j
    and then the query's item i. The L tokens of item j are summed before gating, so the largest
    array is [B, H, T, T * L, C] and none is [B, H, T * L, T * L, C].
    """
    batch, heads, n_tokens, width = q.shape
    n_items = gate.shape[2]
    levels = n_tokens // n_items
    weights = _weights(q, k, bias).to(v.dtype)  # [B, H, T * L, T * L]
    weights = weights.unflatten(-1, (n_items, levels)).transpose(2, 3)  # [B, H, Tj, T * L, L]
    per_item = weights @ v.unflatten(2, (n_items, levels))  # [B, H, Tj, Ti * L, C]
    per_item = per_item.view(batch, heads, n_items, n_items, levels, width)
    gated = per_item * gate.unsqueeze(4)  # [B, H, Tj, Ti, L, C]
    return gated.sum(2).view(batch, heads, n_tokens, width)


class SimilarityGate(nn.Module):
    """The similarity embedding e_sim of Eq. 17: K + 1 rows, one channel per hidden unit.

    ``init`` "identity": ones plus N(0, 0.01), an ordinary attention at the start; "uniform":
    U(0, 0.01), the paper's initialisation of all embeddings.
    """

    def __init__(self, n_buckets: int, hidden_size: int, n_heads: int, init: str) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.table = nn.Parameter(torch.empty(n_buckets + 1, hidden_size))
        if init == "identity":
            nn.init.normal_(self.table, 1.0, 0.01)
        else:
            nn.init.uniform_(self.table, 0.0, 0.01)

    def forward(self, buckets: Tensor) -> Tensor:
        """int64 [B, T, T] (symmetric) -> [B, H, T, T, C]."""
        rows, heads = self.table.shape[0], self.n_heads
        # One row per (head, bucket): the lookup itself then gives the layout attention needs.
        table = self.table.unflatten(1, (heads, -1)).transpose(0, 1).flatten(0, 1)
        head = torch.arange(heads, device=buckets.device).view(1, heads, 1, 1)
        return F.embedding(buckets[:, None] + head * rows, table)
