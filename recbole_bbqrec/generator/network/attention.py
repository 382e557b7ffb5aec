"""Plain and similarity-enhanced attention (Eq. 14-17).

Shapes: H heads of width C (hidden size d = H * C), T items of L tokens a history; token (i, k) is
row i * L + k. Attention probabilities are not dropped out: the residual branches are, and the
fused kernels are fastest without.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from recbole_bbqrec.generator.settings import GeneratorSettings

_GATED_ITEMS = 7  # query items gated at a time on a CPU: more take more memory, fewer more overhead
_GATED_VALUES = 1 << 25  # gated values held at a time elsewhere: few large operations are best
# Not cuDNN's: it plans every new shape for 50 ms (on an H200), and each batch has its own.
_KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
MIN_SOFTMAX_KEYS = 16  # pad to this many keys: shorter rows are slow, see softmax()


def similarity_buckets(vectors: Tensor, n_buckets: int) -> Tensor:
    """Sort the cosines of all pairs of items into buckets (Eq. 14, 15).

    ``vectors``: [B, T, V] of unit length -> int64 [B, T, T] in 0 .. n_buckets, that is,
    round((cos + 1) / 2 * n_buckets) with halves to the even neighbour.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        cosine = vectors @ vectors.transpose(1, 2)  # [B, T, T]
        scaled = cosine.add_(1.0).mul_(n_buckets / 2).round_()
    return scaled.clamp_(0, n_buckets).long()


def split_heads(x: Tensor, n_heads: int) -> Tensor:
    """Cut channels into heads: [B, S, H * C] -> [B, H, S, C]."""
    heads: Tensor = x.unflatten(-1, (n_heads, -1)).transpose(1, 2)
    return heads


def merge_heads(x: Tensor) -> Tensor:
    """Join heads: [B, H, S, C] -> [B, S, H * C]."""
    return x.transpose(1, 2).flatten(2)


def blocking_bias(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """Return 0 where ``visible`` (bool, any shape) and a large negative number elsewhere.

    Finite, so that a row that sees nothing gives some average and not NaN; halved, so that
    adding a score cannot overflow.
    """
    bias = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return bias.masked_fill_(~visible, torch.finfo(dtype).min / 2)


def history_bias(valid: Tensor, n_tokens: int, causal: bool, dtype: torch.dtype) -> Tensor:
    """Return the bias of self-attention over histories of ``n_tokens`` tokens an item.

    ``valid`` bool [B, T] -> [T * L, T * L] if ``causal``, else [B, 1, 1, T * L].
    """
    if not causal:
        return blocking_bias(valid.repeat_interleave(n_tokens, 1)[:, None, None], dtype)
    # Padding lies right of every item, so causality alone hides it.
    n_items = valid.shape[1]
    visible = torch.ones(n_items, n_items, dtype=torch.bool, device=valid.device).tril()
    visible = visible.repeat_interleave(n_tokens, 0).repeat_interleave(n_tokens, 1)
    return blocking_bias(visible, dtype)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Attend by scaled dot products: [B, H, S, C] to [B, H, K, C] -> [B, H, S, C].

    ``bias`` is added to the scores and broadcast to [B, H, S, K].
    """
    if q.device.type == "cpu":
        # At these lengths plain products are as fast as the fused CPU kernel in float32, and four
        # times as fast in the backward pass in bfloat16.
        return _weights(q * q.shape[-1] ** -0.5, k, bias).to(v.dtype) @ v
    if bias is not None:
        bias = bias.to(q.dtype)
    with sdpa_kernel(_KERNELS):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


def _weights(q: Tensor, k: Tensor, bias: Tensor | None) -> Tensor:
    """Return attention probabilities [B, H, S, K] of scaled queries."""
    scores = q @ k.transpose(-1, -2)
    if bias is not None:
        scores = scores.add_(bias.to(scores.dtype))
    return softmax(scores)


def softmax(scores: Tensor) -> Tensor:
    """Softmax over the last dimension, padded to 16 places on a CPU.

    Rows shorter than the vector units are slow: 15 places take five times as long as 16.
    """
    missing = MIN_SOFTMAX_KEYS - scores.shape[-1]
    if missing <= 0 or scores.device.type != "cpu":
        return scores.softmax(-1)
    return F.pad(scores, (0, missing), value=-torch.inf).softmax(-1)[..., :-missing]


def similarity_attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    table: Tensor,
    buckets: Tensor,
    causal: bool = False,
) -> Tensor:
    """Self-attention whose values are scaled, per channel, by the item pair (Eq. 16, 17).

    ``q``, ``k``, ``v``: [B, H, T * L, C]; ``table``: [H, K + 1, C]; ``buckets``: int64 [B, T, T],
    the row of ``table`` for a query of item i and a key of item j. With ``causal``, ``bias`` hides
    all items after the query's, and their gates are never formed.
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:
        # Products of a few rows each take half the time in float32, casts included.
        with torch.autocast("cpu", enabled=False):
            wide = similarity_attend(q.float(), k.float(), v.float(), bias, table, buckets, causal)
        return wide.to(q.dtype)
    n_items = buckets.shape[1]
    # Keys by level and then item: a gate row then meets contiguous runs of values.
    k, v = (y.unflatten(2, (n_items, -1)).transpose(2, 3) for y in (k, v))  # [B, H, L, T, C]
    if bias is not None:
        bias = bias.unflatten(-1, (n_items, -1)).transpose(-1, -2).flatten(-2)
    scaled = q * q.shape[-1] ** -0.5
    return gated_attention(scaled, k, v.contiguous(), bias, table, buckets, causal)


def gated_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    table: Tensor,
    buckets: Tensor,
    causal: bool,
) -> Tensor:
    """Attend as :func:`similarity_attend`, to keys and values that lie by level and then item.

    ``q`` [B, H, T * L, C], scaled already; ``k``, ``v`` [B, H, L, T, C]; ``bias`` broadcasts to
    [B, H, T * L, L * T].
    """
    weights = _weights(q, k.flatten(2, 3), bias).to(v.dtype)  # [B, H, T * L, L * T]
    table = table.to(v.dtype)
    if not torch.is_grad_enabled():
        return _gated_sum(weights, v, table, buckets, causal)
    mixed: Tensor = _GatedSum.apply(weights, v, table, buckets, causal)  # type: ignore[no-untyped-call]
    return mixed


def _gated_sum(weights: Tensor, v: Tensor, table: Tensor, buckets: Tensor, causal: bool) -> Tensor:
    """Do the work of :class:`_GatedSum`."""
    out = torch.empty(*weights.shape[:3], v.shape[4], dtype=v.dtype, device=v.device)
    for rows, seen, pair in _blocks(buckets, v.shape[2], table, causal):
        gated = (_gate(table, pair).unsqueeze(3) * v[:, :, None, :, :seen]).flatten(3, 4)
        mixed = _of_items(weights, rows, seen, v) @ gated  # [B, H, i, L, C]
        out[:, :, rows] = mixed.flatten(2, 3)
    return out


class _GatedSum(torch.autograd.Function):
    """Weighted sum of gated values, over a few query items at a time.

    ``weights`` [B, H, T * L, L * T] and ``v`` [B, H, L, T, C] (keys by level, then item) ->
    [B, H, T * L, C]. Gates and gated values [B, H, i, L, T, C] exist for i query items only and
    are formed again in the backward pass, so that nothing of their size is kept.
    """

    @staticmethod
    def forward(
        ctx: Any, weights: Tensor, v: Tensor, table: Tensor, buckets: Tensor, causal: bool
    ) -> Tensor:
        ctx.save_for_backward(weights, v, table, buckets)
        ctx.causal = causal
        return _gated_sum(weights, v, table, buckets, causal)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        weights, v, table, buckets = ctx.saved_tensors
        levels, n_items = v.shape[2:4]
        upstream = upstream.to(v.dtype)
        wide = torch.promote_types(v.dtype, torch.float32)  # sums of many terms
        d_weights = torch.zeros_like(weights)
        d_v = torch.zeros(v.shape, dtype=wide, device=v.device)
        d_table = torch.zeros(table.shape, dtype=wide, device=v.device).flatten(0, 1)
        for rows, seen, pair in _blocks(buckets, levels, table, ctx.causal):
            gate, values = _gate(table, pair).unsqueeze(3), v[:, :, None, :, :seen]
            d_out = upstream[:, :, rows].unflatten(2, (-1, levels))  # [B, H, i, L, C]
            d_block = d_out @ (gate * values).flatten(3, 4).transpose(-1, -2)
            by_level = d_weights[:, :, rows].unflatten(3, (levels, n_items))
            by_level[..., :seen] = d_block.flatten(2, 3).unflatten(3, (levels, seen))
            block = _of_items(weights, rows, seen, v)  # [B, H, i, L, L * seen]
            d_gated = (block.transpose(-1, -2) @ d_out).unflatten(3, (levels, seen))
            d_gate = (d_gated * values).sum(3)  # [B, H, i, seen, C]
            d_table.index_add_(0, pair.flatten(), d_gate.flatten(0, 3).to(wide))
            d_v[:, :, :, :seen] += d_gated.mul_(gate).sum(2)
        d_table = d_table.view_as(table).to(table.dtype)
        return d_weights, d_v.to(v.dtype), d_table, None, None


def _blocks(
    buckets: Tensor, levels: int, table: Tensor, causal: bool
) -> Iterator[tuple[slice, int, Tensor]]:
    """Yield runs of i query items: their tokens, the number of items seen, their gates' rows.

    The rows, int64 [B, H, i, seen], are those of ``table`` [H, K + 1, C] with the heads laid end
    to end, so that the lookup gives the layout attention needs.
    """
    heads, n_rows, _ = table.shape
    n_items = buckets.shape[1]
    first = torch.arange(heads, device=buckets.device).view(1, heads, 1, 1) * n_rows
    at_once = _GATED_ITEMS
    if buckets.device.type != "cpu":
        of_item = len(buckets) * n_items * levels * table[:, 0].numel()
        at_once = max(1, _GATED_VALUES // max(1, of_item))
    for begin in range(0, n_items, at_once):
        end = min(begin + at_once, n_items)
        seen = end if causal else n_items
        pair = buckets[:, None, begin:end, :seen] + first
        yield slice(begin * levels, end * levels), seen, pair


def _gate(table: Tensor, pair: Tensor) -> Tensor:
    """Look up gates: [H, K + 1, C], int64 [B, H, i, j] -> [B, H, i, j, C]."""
    return F.embedding(pair, table.flatten(0, 1))


def _of_items(weights: Tensor, rows: slice, seen: int, v: Tensor) -> Tensor:
    """Return the weights of some query items on the first ``seen``: [B, H, i, L, L * seen]."""
    levels, n_items = v.shape[2:4]
    block = weights[:, :, rows].unflatten(3, (levels, n_items))[..., :seen]
    cut: Tensor = block.flatten(3).unflatten(2, (-1, levels))
    return cut


class SimilarityGate(nn.Module):
    """Similarity-enhanced attention with the embedding e_sim of Eq. 17.

    The table has K + 1 rows, and one channel per hidden unit. ``similarity_init`` "identity":
    ones plus N(0, 0.01), an ordinary attention at the start; "uniform": U(0, 0.01), the paper's
    initialisation of all embeddings.
    """

    def __init__(self, config: GeneratorSettings) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.causal = config.history_encoding == "causal"
        self.table = nn.Parameter(torch.empty(config.similarity_buckets + 1, config.hidden_size))
        if config.similarity_init == "identity":
            nn.init.normal_(self.table, 1.0, 0.01)
        else:
            nn.init.uniform_(self.table, 0.0, 0.01)

    def by_head(self) -> Tensor:
        """Return the table by heads: [H, K + 1, C]."""
        heads: Tensor = self.table.unflatten(1, (self.n_heads, -1)).transpose(0, 1)
        return heads

    def forward(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, buckets: Tensor) -> Tensor:
        """Attend, see :func:`similarity_attend`."""
        return similarity_attend(q, k, v, bias, self.by_head(), buckets, self.causal)


class NoGate(nn.Module):
    """Stands in for :class:`SimilarityGate`: plain attention, whatever the items' similarity."""

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, buckets: Tensor | None
    ) -> Tensor:
        """Attend, see :func:`attend`."""
        return attend(q, k, v, bias)
