"""The encoder at inference: :meth:`Generator.encode` from a plan's weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_bbqrec.generator.batch.encoded_history import Memory, check_histories
from recbole_bbqrec.generator.batch.packing import Packing
from recbole_bbqrec.generator.inference.compiled_weights import EncoderWeights, Plan, plan_of
from recbole_bbqrec.generator.inference.fused_linear import feed_forward, linear, normed
from recbole_bbqrec.generator.items.catalogue import Catalogue
from recbole_bbqrec.generator.network.attention import (
    blocking_bias,
    gated_attention,
    merge_heads,
    similarity_buckets,
    softmax,
)
from recbole_bbqrec.generator.network.seq2seq import Generator


@torch.no_grad()
def encode(generator: Generator, catalogue: Catalogue, items: Tensor) -> Memory:
    """As :meth:`Generator.encode` in evaluation mode, without gradients.

    ``items`` int64 [B, T], right padded with 0. Raises ValueError as there, and when the
    generator is in training mode.
    """
    if generator.training:
        raise ValueError("encoding without gradients needs evaluation mode: call train(False)")
    plan = plan_of(generator)
    with torch.autocast(items.device.type, enabled=False):
        return _encode(plan, catalogue, items, plan.item_inputs(generator, catalogue))


def _encode(plan: Plan, catalogue: Catalogue, items: Tensor, own: Tensor | None) -> Memory:
    """``own`` [n_items, d]: see :meth:`Generator.item_inputs`."""
    valid = check_histories(items, plan.config.max_history)
    cells = Packing(valid)
    packed = cells.pack(items)  # [n]
    rows = (catalogue.codes[packed] + plan.token_rows).flatten(0, 1)  # [n * L, M]
    tokens = F.embedding_bag(rows, plan.table.flatten(0, 1), mode="sum")
    n_items = items.shape[1]
    x = tokens.unflatten(0, (-1, plan.config.levels))
    if plan.config.history_tokens == "item":
        x = x.sum(1, keepdim=True)
    if own is not None:
        x = x + own[packed].unsqueeze(1)
    position = cells.pack(plan.position[:n_items].expand(*items.shape, -1)).unsqueeze(1)
    x = (normed(x + plan.level, plan.encoder_input_norm) + position).to(plan.dtype)  # [n, L, d]
    bias, buckets = _bias(plan, cells, valid), None
    if plan.config.similarity:
        if catalogue.vectors is None:
            raise ValueError("the similarity module needs item vectors; the catalogue has none")
        buckets = similarity_buckets(catalogue.vectors[items], plan.config.similarity_buckets)
    for weights in plan.encoder:
        x = _layer(plan, x, weights, cells, bias, buckets)
    return Memory(normed(x, plan.encoder_norm), cells, items, valid.sum(1), plan.table)


def _layer(
    plan: Plan,
    x: Tensor,
    weights: EncoderWeights,
    cells: Packing,
    bias: Tensor | None,
    buckets: Tensor | None,
) -> Tensor:
    """``x`` [n, L, d], the packed items of a [B, T] grid -> [n, L, d]."""
    grid = cells.unpack(linear(normed(x, weights.attention_norm), weights.qkv))
    parts = grid.unflatten(3, (3, plan.config.n_heads, -1))  # [B, T, L, 3, H, C]
    gate = None if buckets is None else weights.gate
    if gate is not None:
        parts = parts.to(plan.wide)  # products of L rows, which bfloat16 does no faster
    q = parts[:, :, :, 0].permute(0, 3, 1, 2, 4).flatten(2, 3)  # [B, H, T * L, C]
    k, v = parts[:, :, :, 1:].permute(3, 0, 4, 2, 1, 5).contiguous()  # [B, H, L, T, C]
    if gate is None or buckets is None:
        scores = (q @ k.flatten(2, 3).transpose(-1, -2)).to(plan.wide)
        scores = scores if bias is None else scores.add_(bias)
        mixed = softmax(scores).to(v.dtype) @ v.flatten(2, 3)
    else:
        causal = plan.config.history_encoding == "causal"
        mixed = gated_attention(q, k, v, bias, gate, buckets, causal)
    mixed = merge_heads(mixed.to(plan.dtype)).unflatten(1, (-1, x.shape[1]))  # [B, T, L, d]
    x = x + linear(cells.pack(mixed), weights.out)
    return x + feed_forward(normed(x, weights.feed_norm), weights.feed_in, weights.feed_out)


def _bias(plan: Plan, cells: Packing, valid: Tensor) -> Tensor | None:
    """Hides what a query may not see, keys by level and then item: [.., T * L or 1, L * T]."""
    levels, n_items = plan.config.history_levels, valid.shape[1]
    if plan.config.history_encoding == "causal":
        # Padding lies to the right of every item, so causality alone hides it.
        bias = plan.causal[:n_items, :, :, :n_items].expand(-1, levels, levels, -1)
        return bias.reshape(n_items * levels, levels * n_items)
    if cells.index is None:
        return None
    visible = valid.repeat(1, levels)[:, None, None]  # [B, 1, 1, L * T]
    return blocking_bias(visible, plan.wide)
