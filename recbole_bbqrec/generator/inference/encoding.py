"""The encoder at inference: :class:`HistoryEncoder` from compiled weights."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_bbqrec.generator.batch.checks import check_histories
from recbole_bbqrec.generator.batch.encoded_history import Memory
from recbole_bbqrec.generator.batch.packing import Packing
from recbole_bbqrec.generator.inference.compiled_weights import (
    CompiledWeights,
    EncoderWeights,
    compiled,
)
from recbole_bbqrec.generator.inference.fused_linear import feed_forward, linear, normed
from recbole_bbqrec.generator.items.catalogue import Catalogue
from recbole_bbqrec.generator.network.attention import (
    blocking_bias,
    gated_attention,
    merge_heads,
    softmax,
)
from recbole_bbqrec.generator.network.embedding import positions_of
from recbole_bbqrec.generator.network.seq2seq import Generator


@torch.no_grad()
def encode(
    generator: Generator,
    catalogue: Catalogue,
    items: Tensor,
    weights: CompiledWeights | None = None,
) -> Memory:
    """Encode histories as :meth:`Generator.encode` does in evaluation mode, without gradients.

    ``items`` int64 [B, T], right padded with 0; ``weights``: those of ``generator`` as they are
    now, by default looked up. Raises ValueError for T above ``max_history``, an empty history,
    padding that is not on the right, and a generator in training mode.
    """
    if generator.training:
        raise ValueError("encoding without gradients needs evaluation mode: call train(False)")
    check_histories(items, generator.config.max_history)
    weights = weights or compiled(generator)
    with torch.autocast(items.device.type, enabled=False):
        own = weights.item_inputs(generator, catalogue)
        buckets = generator.encoder.buckets(catalogue, items)
        return _encode(weights, catalogue, items, own, buckets)


def _encode(
    weights: CompiledWeights,
    catalogue: Catalogue,
    items: Tensor,
    own: Tensor,
    buckets: Tensor | None,
) -> Memory:
    """``own`` [n_items, d or 1]: see :meth:`HistoryEncoder.item_inputs`."""
    valid = items != 0
    cells = Packing(valid)
    packed = cells.pack(items)  # [n]
    x = weights.table.embed(catalogue.codes[packed])
    if weights.config.history_tokens == "item":
        x = x.sum(1, keepdim=True)
    x = x + own[packed].unsqueeze(1)
    position = positions_of(weights.position, valid, weights.config.from_last)
    position = cells.pack(position).unsqueeze(1)
    x = x + weights.level
    if weights.config.norm_positions:
        x = normed(x + position, weights.encoder_input_norm)
    else:
        x = normed(x, weights.encoder_input_norm) + position
    x = x.to(weights.dtype)  # [n, L, d]
    bias = _bias(weights, cells, valid)
    for layer in weights.encoder:
        x = _layer(weights, x, layer, cells, bias, buckets)
    return Memory(normed(x, weights.encoder_norm), cells, items, valid.sum(1), weights.table)


def _layer(
    weights: CompiledWeights,
    x: Tensor,
    layer: EncoderWeights,
    cells: Packing,
    bias: Tensor | None,
    buckets: Tensor | None,
) -> Tensor:
    """``x`` [n, L, d], the packed items of a [B, T] grid -> [n, L, d]."""
    grid = cells.unpack(linear(normed(x, layer.attention_norm), layer.qkv))
    parts = grid.unflatten(3, (3, weights.config.n_heads, -1))  # [B, T, L, 3, H, C]
    gate = None if buckets is None else layer.gate
    if gate is not None:
        parts = parts.to(weights.wide)  # products of L rows, which bfloat16 does no faster
    q = parts[:, :, :, 0].permute(0, 3, 1, 2, 4).flatten(2, 3)  # [B, H, T * L, C]
    k, v = parts[:, :, :, 1:].permute(3, 0, 4, 2, 1, 5).contiguous()  # [B, H, L, T, C]
    if gate is None or buckets is None:
        scores = (q @ k.flatten(2, 3).transpose(-1, -2)).to(weights.wide)
        scores = scores if bias is None else scores.add_(bias)
        mixed = softmax(scores).to(v.dtype) @ v.flatten(2, 3)
    else:
        causal = weights.config.history_encoding == "causal"
        mixed = gated_attention(q, k, v, bias, gate, buckets, causal)
    mixed = merge_heads(mixed.to(weights.dtype)).unflatten(1, (-1, x.shape[1]))  # [B, T, L, d]
    x = x + linear(cells.pack(mixed), layer.out)
    return x + feed_forward(normed(x, layer.feed_norm), layer.feed_in, layer.feed_out)


def _bias(weights: CompiledWeights, cells: Packing, valid: Tensor) -> Tensor | None:
    """Hide what a query may not see, keys by level and then item: [.., T * L or 1, L * T]."""
    levels, n_items = weights.config.history_levels, valid.shape[1]
    if weights.config.history_encoding == "causal":
        # Padding lies to the right of every item, so causality alone hides it.
        bias = weights.causal[:n_items, :, :, :n_items].expand(-1, levels, levels, -1)
        return bias.reshape(n_items * levels, levels * n_items)
    if cells.index is None:
        return None
    visible = valid.repeat(1, levels)[:, None, None]  # [B, 1, 1, L * T]
    return blocking_bias(visible, weights.wide)
