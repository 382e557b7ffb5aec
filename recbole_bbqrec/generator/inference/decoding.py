"""The decoder at inference, one level at a time.

The same network as :mod:`~recbole_bbqrec.generator.network.code_decoder`, from
:class:`~recbole_bbqrec.generator.inference.compiled_weights.CompiledWeights`: everything is in
their dtype but sums of embeddings, softmax and logits, which are float32 or wider.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_bbqrec.generator.batch.encoded_history import Memory
from recbole_bbqrec.generator.head.item_scores import ItemScores
from recbole_bbqrec.generator.inference.compiled_weights import CompiledWeights, DecoderWeights
from recbole_bbqrec.generator.inference.fused_linear import feed_forward, linear, normed
from recbole_bbqrec.generator.inference.shortlist import NodeGroups
from recbole_bbqrec.generator.network.attention import MIN_SOFTMAX_KEYS, blocking_bias


class Decoder:
    """Predicts one level after the other for the beams of B users.

    Keys and values of the histories are computed once per user and the beams are queries of one
    attention call. Each level decoded so far keeps its keys and values side by side: [B, W, 2 * d]
    for W beams, W = 1 standing for all beams of the user.
    """

    def __init__(
        self,
        weights: CompiledWeights,
        memory: Memory,
        scores: ItemScores | None = None,
        groups: NodeGroups | None = None,
    ) -> None:
        """Prepare for the B histories of ``memory``.

        ``scores``: their item head, if there is one; ``groups``: of first-level nodes, where not
        all items are to be scored.
        """
        self.weights, self.scores, self.groups = weights, scores, groups
        self.memory = _memory_keys_values(weights, memory)
        self.bias = _bias(weights, memory)
        self.history = _history(weights, memory)  # [B, 1, d]
        self.past: list[list[Tensor]] = [[] for _ in weights.decoder]  # by layer, then level

    def start(self) -> Tensor:
        """Return the hidden states that predict the first level: [B, 1, d]."""
        token = self.history.new_zeros(())
        return self._run(token, 0)

    def advance(self, level: int, codes: Tensor, rows: Tensor) -> Tensor:
        """Return the hidden states that predict ``level`` >= 1: [B, S, d].

        ``codes`` int64 [B, S, M]: the tokens of ``level - 1``; ``rows`` int64 [B, S]: each beam's
        parent, as its row in the previous call.
        """
        tokens = self.weights.table.embed(codes.flatten(0, 1).unsqueeze(1), level - 1)
        self._follow(rows)
        return self._run(tokens.view(*rows.shape, -1), level)

    def logits(self, hidden: Tensor, level: int) -> Tensor:
        """Return logits over codes at ``level``: [..., d] -> [..., M * N], in the wide dtype."""
        return linear(hidden, self.weights.heads[level]).to(self.weights.wide)

    def _follow(self, rows: Tensor) -> None:
        """Give every beam the keys and values of its parent: ``rows`` int64 [B, S]."""
        flat: Tensor | None = None
        for past in self.past:
            for level, pair in enumerate(past):
                width = pair.shape[1]
                if width == 1:
                    continue
                if flat is None:  # all levels but the first are of one width
                    first = torch.arange(0, len(rows) * width, width, device=rows.device)
                    flat = (rows + first[:, None]).flatten()
                past[level] = pair.flatten(0, 1).index_select(0, flat).view(*rows.shape, -1)

    def _run(self, tokens: Tensor, level: int) -> Tensor:
        """Decode embedded tokens, broadcast to [B, S, d], into hidden states [B, S, d]."""
        weights = self.weights
        x = tokens + (self.history + weights.decoder_level[level])
        x = normed(x, weights.decoder_input_norm).to(weights.dtype)
        for layer, past, pair in zip(weights.decoder, self.past, self.memory):
            x = self._layer(x, layer, past, *pair)
        return normed(x, weights.decoder_norm)

    def _layer(
        self, x: Tensor, layer: DecoderWeights, past: list[Tensor], keys: Tensor, values: Tensor
    ) -> Tensor:
        d = x.shape[-1]
        query, own = linear(normed(x, layer.self_norm), layer.qkv).split([d, 2 * d], -1)
        past.append(own)
        x = x + linear(_attend_few(query, past, self.weights.head_sums), layer.self_out)
        query = linear(normed(x, layer.cross_norm), layer.cross_query)
        mixed = _attend(query, keys, values, self.bias, self.weights.wide)
        x = x + linear(mixed, layer.cross_out)
        return x + feed_forward(normed(x, layer.feed_norm), layer.feed_in, layer.feed_out)


def _memory_keys_values(weights: CompiledWeights, memory: Memory) -> list[tuple[Tensor, Tensor]]:
    """Return keys [B, H, C, K] and values [B, H, K, C] of every layer; K is T * L, at least 16."""
    states = memory.states.to(weights.dtype)
    grid = memory.cells.unpack(linear(states, weights.memory)).flatten(1, 2)
    if grid.shape[1] < MIN_SOFTMAX_KEYS:
        grid = F.pad(grid, (0, 0, 0, MIN_SOFTMAX_KEYS - grid.shape[1]))
    parts = grid.unflatten(2, (len(weights.decoder), 2, weights.config.n_heads, -1))
    keys, values = parts.permute(3, 2, 0, 4, 1, 5).contiguous()  # [layers, B, H, T * L, C]
    return list(zip(keys.transpose(-1, -2), values))


def _bias(weights: CompiledWeights, memory: Memory) -> Tensor | None:
    """Return a bias that hides padding, [B or 1, 1, 1, K], or None without any."""
    levels, lengths = weights.config.history_levels, memory.lengths
    n_keys = memory.cells.shape[1] * levels
    if memory.cells.index is None:
        if n_keys >= MIN_SOFTMAX_KEYS:
            return None
        lengths = lengths[:1]  # all are alike
    key = torch.arange(max(n_keys, MIN_SOFTMAX_KEYS), device=lengths.device)
    return blocking_bias(key < lengths[:, None] * levels, weights.wide)[:, None, None]


def _history(weights: CompiledWeights, memory: Memory) -> Tensor:
    """Return what the decoder's inputs take from the last item: [B, 1, d], or zeros [B, 1, 1]."""
    if weights.start is None:
        return weights.decoder_level.new_zeros(len(memory.lengths), 1, 1)
    states = memory.last().flatten(1)  # [B, L * d]
    history = linear(states.to(weights.dtype), weights.start)
    return history.to(weights.decoder_level.dtype).unsqueeze(1)


def _attend(
    query: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None, wide: torch.dtype
) -> Tensor:
    """Attend: [B, S, d] to keys [B, H, C, K] and values [B, H, K, C] -> [B, S, d]."""
    heads = query.unflatten(-1, (keys.shape[1], -1)).transpose(1, 2)  # [B, H, S, C]
    scores = heads @ keys
    if bias is not None:
        scores = scores + bias
    weights = scores.softmax(-1, dtype=wide).to(values.dtype)
    mixed: Tensor = (weights @ values).transpose(1, 2).flatten(2)
    return mixed


def _attend_few(query: Tensor, past: list[Tensor], head_sums: Tensor) -> Tensor:
    """Attend from each beam to its own few keys: [B, S, d] to l of [B, S or 1, 2 * d].

    Elements are multiplied and then summed by head with a matrix of ones. B * S * H products of
    one-row matrices would be mostly overhead, and sums over 32 channels are slow in bfloat16.
    """
    d = query.shape[-1]
    if len(past) == 1:
        return past[0][..., d:].expand_as(query)
    products = query.new_empty(len(past), *query.shape)  # [l, B, S, d]
    for product, pair in zip(products, past):
        torch.mul(query, pair[..., :d], out=product)
    wide = torch.promote_types(query.dtype, torch.float32)
    weights = (products @ head_sums).softmax(0, dtype=wide).to(query.dtype)  # [l, B, S, H]
    spread = weights @ head_sums.t()  # [l, B, S, d]
    mixed = spread[0] * past[0][..., d:]
    for weight, pair in zip(spread[1:], past[1:]):
        mixed.addcmul_(weight, pair[..., d:])
    return mixed
