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
from recbole_bbqrec.generator.batch.packing import Packing
from recbole_bbqrec.generator.head.item_scores import ItemScores
from recbole_bbqrec.generator.inference.compiled_weights import CompiledWeights, DecoderWeights
from recbole_bbqrec.generator.inference.fused_linear import feed_forward, linear, normed
from recbole_bbqrec.generator.inference.shortlist import NodeGroups
from recbole_bbqrec.generator.network.attention import MIN_SOFTMAX_KEYS, blocking_bias


class Decoder:
    """Predicts one level after the other for the beams of B users.

    Keys and values of the histories are computed once per user and the beams are queries of one
    attention call. Everywhere else the beams of all users lie side by side, one a row: first one
    for each user, then those that the caller follows. Each level decoded so far keeps the keys and
    values of its R rows: [R, 2 * d].
    """

    def __init__(
        self,
        weights: CompiledWeights,
        keys_values: list[tuple[Tensor, Tensor]],
        bias: Tensor | None,
        history: Tensor,
        scores: ItemScores | None = None,
        groups: NodeGroups | None = None,
    ) -> None:
        """Prepare for B histories, see :meth:`after`.

        ``keys_values``: of every layer, [B, H, C, K] and [B, H, K, C]; ``bias`` hides padding;
        ``history`` [B, d or 1]: what the inputs take from the last item.
        """
        self.weights, self.scores, self.groups = weights, scores, groups
        self.memory, self.bias = keys_values, bias
        self.history = history  # [R, d or 1]
        self.past: list[list[Tensor]] = [[] for _ in weights.decoder]  # by layer, then level

    @classmethod
    def after(
        cls,
        weights: CompiledWeights,
        memory: Memory,
        scores: ItemScores | None = None,
        groups: NodeGroups | None = None,
    ) -> Decoder:
        """Prepare for the B histories of ``memory``.

        ``scores``: their item head, if there is one; ``groups``: of first-level nodes, where not
        all items are to be scored.
        """
        pairs, bias = _memory_keys_values(weights, memory), _bias(weights, memory)
        last = memory.last().flatten(1)  # [B, L * d]
        return cls(weights, pairs, bias, history_of(weights, last), scores, groups)

    def start(self) -> Tensor:
        """Return the hidden states that predict the first level: [B, d]."""
        used = torch.ones(len(self.history), 1, dtype=torch.bool, device=self.history.device)
        return self._run(self.history.new_zeros(()), 0, Packing(used))

    def advance(self, level: int, codes: Tensor, rows: Tensor, cells: Packing) -> Tensor:
        """Return the hidden states that predict ``level`` >= 1: [R, d].

        ``codes`` int64 [R, M]: the tokens of ``level - 1``; ``rows`` int64 [R]: each beam's parent,
        as its row in the previous call; ``cells``: where the beams lie in a [B, S] grid, a row of
        which has those of one user.
        """
        self.history = self.history.index_select(0, rows)
        for past in self.past:
            past[:] = [pair.index_select(0, rows) for pair in past]
        tokens = self.weights.table.embed(codes.unsqueeze(1), level - 1)
        return self._run(tokens.squeeze(1), level, cells)

    def logits(self, hidden: Tensor, level: int) -> Tensor:
        """Return logits over codes at ``level``: [..., d] -> [..., M * N], in the wide dtype."""
        return linear(hidden, self.weights.heads[level]).to(self.weights.wide)

    def _run(self, tokens: Tensor, level: int, cells: Packing) -> Tensor:
        """Decode embedded tokens, broadcast to [R, d], into hidden states [R, d]."""
        weights = self.weights
        x = tokens + (self.history + weights.decoder_level[level])
        x = normed(x, weights.decoder_input_norm).to(weights.dtype)
        for layer, past, pair in zip(weights.decoder, self.past, self.memory):
            x = self._layer(x, layer, past, *pair, cells)
        return normed(x, weights.decoder_norm)

    def _layer(
        self,
        x: Tensor,
        layer: DecoderWeights,
        past: list[Tensor],
        keys: Tensor,
        values: Tensor,
        cells: Packing,
    ) -> Tensor:
        d = x.shape[-1]
        query, own = linear(normed(x, layer.self_norm), layer.qkv).split([d, 2 * d], -1)
        past.append(own)
        x = x + linear(_attend_few(query, past, self.weights.head_sums), layer.self_out)
        query = linear(normed(x, layer.cross_norm), layer.cross_query)
        mixed = _attend(cells.unpack(query), keys, values, self.bias, self.weights.wide)
        x = x + linear(cells.pack(mixed), layer.cross_out)
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


def history_of(weights: CompiledWeights, last: Tensor) -> Tensor:
    """Return what the decoder's inputs take from the last item: [B, d], or zeros [B, 1].

    ``last`` [B, L * d]: the encoder's states of that item.
    """
    if weights.start is None:
        return weights.decoder_level.new_zeros(len(last), 1)
    history = linear(last.to(weights.dtype), weights.start)
    return history.to(weights.decoder_level.dtype)


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
    """Attend from each beam to its own few keys: [R, d] to l of [R, 2 * d].

    Elements are multiplied and then summed by head with a matrix of ones. R * H products of
    one-row matrices would be mostly overhead, and sums over 32 channels are slow in bfloat16.
    """
    d = query.shape[-1]
    if len(past) == 1:
        return past[0][..., d:]
    products = query.new_empty(len(past), *query.shape)  # [l, R, d]
    for product, pair in zip(products, past):
        torch.mul(query, pair[..., :d], out=product)
    wide = torch.promote_types(query.dtype, torch.float32)
    weights = (products @ head_sums).softmax(0, dtype=wide).to(query.dtype)  # [l, R, H]
    spread = weights @ head_sums.t()  # [l, R, d]
    mixed = spread[0] * past[0][..., d:]
    for weight, pair in zip(spread[1:], past[1:]):
        mixed.addcmul_(weight, pair[..., d:])
    return mixed
