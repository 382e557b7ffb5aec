"""The network in plain tensor operations, and beam search in a few lines, for one history.

This is what an implementation elsewhere would translate. Nothing is packed, cached or fused; the
lists are those of the fast code.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from recbole_bbqrec.generator.network.attention import (
    blocking_bias,
    similarity_buckets,
)
from recbole_bbqrec.generator.network.embedding import positions_of
from recbole_bbqrec.portable.model import PortableModel

Encode = Callable[[Tensor], Tensor]  # items [T] -> states [T, L, d]
Decode = Callable[[Tensor, Tensor, Tensor], Tensor]  # states, length, codes [n, l, M] -> [n, M * N]


class EncoderStep(nn.Module):
    """Encodes one history (Eq. 14 to 17)."""

    codes: Tensor
    vectors: Tensor
    features: Tensor

    def __init__(self, model: PortableModel) -> None:
        super().__init__()
        self.network: Any = model.generator.encoder
        self.register_buffer("codes", model.catalogue.codes)
        self.register_buffer("vectors", model.catalogue.vectors)
        self.register_buffer("features", model.catalogue.features)

    def forward(self, items: Tensor) -> Tensor:
        """Encode items int64 [T]: [T, L, d], L tokens an item.

        Behind a causal encoder, items to the right change nothing: T may be padded with 0.
        """
        network, config = self.network, self.network.config
        x = network.tokens.project().embed(self.codes[items])
        if config.history_tokens == "item":
            x = x.sum(1, keepdim=True)
        own = network.items(items)
        if config.feature_dim:
            own = own + network.features(self.features[items])
        x = x + own.unsqueeze(1)  # [T, L, d]
        every = torch.ones(1, len(items), dtype=torch.bool)
        position = positions_of(network.position.weight, every, config.from_last)[0].unsqueeze(1)
        x = x + network.level
        if config.norm_positions:
            x = network.input_norm(x + position)
        else:
            x = network.input_norm(x) + position
        buckets = None
        if config.similarity:
            buckets = similarity_buckets(self.vectors[items][None], config.similarity_buckets)[0]
        for layer in network.layers:
            x = x + layer.attention_out(self._attend(layer, x, buckets))
            x = x + layer.feed(layer.feed_norm(x))
        states: Tensor = network.norm(x)
        return states

    def _attend(self, layer: Any, x: Tensor, buckets: Tensor | None) -> Tensor:
        """Attend among the tokens of all items, values scaled by the pair's gate: [T, L, d]."""
        heads, causal = layer.n_heads, self.network.config.history_encoding == "causal"
        q, k, v = (
            part.unflatten(-1, (heads, -1))
            for part in layer.qkv(layer.attention_norm(x)).chunk(3, -1)
        )  # [T, L, H, C]
        scores = torch.einsum("iahc,jbhc->hiajb", q * q.shape[-1] ** -0.5, k)
        if causal:
            seen = torch.ones(len(x), len(x), dtype=torch.bool).tril()
            scores = scores + blocking_bias(seen, scores.dtype)[None, :, None, :, None]
        weights = scores.flatten(3).softmax(-1).view_as(scores)  # over items j and tokens b
        if buckets is None:
            return torch.einsum("hiajb,jbhc->iahc", weights, v).flatten(2)
        gate = layer.gate.by_head()[:, buckets]  # [H, T, T, C]
        return torch.einsum("hiajb,hijc,jbhc->iahc", weights, gate, v).flatten(2)


class DecoderStep(nn.Module):
    """Logits of the next level's codes after prefixes of codes (Eq. 1)."""

    def __init__(self, model: PortableModel) -> None:
        super().__init__()
        self.network: Any = model.generator.decoder
        self.tokens: Any = model.generator.encoder.tokens

    def forward(self, states: Tensor, length: Tensor, prefix: Tensor) -> Tensor:
        """Return logits [n, M * N], the code c of signal m at m * N + c.

        Args:
            states: [T, L, d] of :class:`EncoderStep`.
            length: int64, the number of items of the history; what is behind it is not read.
            prefix: int64 [n, l, M], codes of the levels so far, l of them, 0 at first.
        """
        network, table, level = self.network, self.tokens.project(), prefix.shape[1]
        x = torch.zeros(prefix.shape[0], 1, states.shape[-1])
        if level:
            x = torch.cat([x, table.embed(prefix)], dim=1)
        x = x + network.level[: level + 1]  # [n, l + 1, d]
        last = states.index_select(0, (length - 1).view(1))  # [1, L, d]
        if network.config.decoder_start == "history":
            x = x + network.start(last.flatten(1)).unsqueeze(1)
        x = network.input_norm(x)
        earlier = torch.ones(level + 1, level + 1, dtype=torch.bool).tril()
        behind = torch.arange(len(states)) < length
        visible = behind.repeat_interleave(states.shape[1])  # [T * L]
        for layer in network.layers:
            q, k, v = layer.qkv(layer.self_norm(x)).chunk(3, -1)
            x = x + layer.self_out(_attend(q, k, v, earlier, layer.n_heads))
            keys, values = layer.cross_kv(states.flatten(0, 1)).chunk(2, -1)
            query = layer.cross_query(layer.cross_norm(x))
            mixed = _attend(query, keys[None], values[None], visible[None], layer.n_heads)
            x = x + layer.cross_out(mixed)
            x = x + layer.feed(layer.feed_norm(x))
        logits: Tensor = network.head(network.norm(x)[:, -1], table, level)
        return logits


def recommend(
    model: PortableModel,
    history: list[str],
    k: int,
    encode: Encode | None = None,
    decode: list[Decode] | None = None,
) -> list[tuple[str, float]]:
    """Return the k best items after one history, with their log-probabilities, by beam search.

    ``encode`` and ``decode``, one function a level, replace the network, as exported programs do.
    """
    with torch.no_grad():
        trie, config = model.catalogue.trie, model.generator.config
        ids = model.ids(history)
        states = (encode or EncoderStep(model))(torch.tensor(ids))
        step = DecoderStep(model)
        steps = decode or [step] * config.levels
        scores = item_scores(model, states, ids)
        below: dict[tuple[Any, ...], list[int]] = defaultdict(list)  # items of each prefix
        children: dict[tuple[Any, ...], set[tuple[Any, ...]]] = defaultdict(set)
        for item in trie.leaf_items.tolist():
            path = tuple(map(tuple, model.catalogue.codes[item].tolist()))
            for level in range(len(path) + 1):
                below[path[:level]].append(item)
                if level:
                    children[path[: level - 1]].add(path[:level])
        beams: list[tuple[tuple[Any, ...], float]] = [((), 0.0)]
        width = min(max(model.num_beams, k), len(trie.leaf_items))
        for level in range(config.levels):
            shape = len(beams), level, config.n_signals
            prefix = torch.tensor([path for path, _ in beams], dtype=torch.int64).view(shape)
            logits = steps[level](states, torch.tensor(len(ids)), prefix)
            logits = logits.unflatten(1, (config.n_signals, -1))
            if config.generation_loss == "code":
                logits = logits.log_softmax(-1)
            grown = []
            for (path, score), row in zip(beams, logits):
                after = sorted(children[path])
                codes = torch.tensor([child[-1] for child in after])  # [c, M]
                gains = row.gather(1, codes.t()).sum(0)  # [c]
                if scores is not None:
                    gains = gains + torch.stack([scores[below[c]].logsumexp(0) for c in after])
                if config.generation_loss == "item":
                    gains = gains.log_softmax(0)
                    if level == config.levels - 1:  # items of one semantic ID share its probability
                        gains = gains - torch.tensor([len(below[c]) for c in after]).log()
                grown += [(child, score + gain) for child, gain in zip(after, gains.tolist())]
            beams = sorted(grown, key=lambda pair: -pair[1])[:width]
        found = []
        for path, score in beams:
            found += [(-score, item) for item in below[path]]
        seen = set(ids) if model.mask_history else set()
        listed = [(item, -value) for value, item in sorted(found) if item not in seen]
        return [(model.tokens[item], value) for item, value in listed[:k]]


def item_scores(model: PortableModel, states: Tensor, ids: list[int]) -> Tensor | None:
    """Return the item head's score of every item, [n_items], with repeats and neighbours.

    None for a model without item head.
    """
    head: Any = model.generator.item_head
    if not model.generator.config.item_head:
        return None
    catalogue, ago = model.catalogue, range(len(ids) - 1, -1, -1)
    content = catalogue.vectors if catalogue.features is None else catalogue.features
    every = torch.arange(catalogue.n_items)
    keys = model.generator.encoder.items.add_to(head.content(content), every)
    scores: Tensor = keys @ states[len(ids) - 1, -1]
    repeat, near = head.repeat(), catalogue.neighbours
    for item, steps in zip(ids, ago):
        scores[item] += repeat[steps]
        if near is not None:
            entries = slice(int(near.pointer[item]), int(near.pointer[item + 1]))
            scores[near.items[entries]] += near.decay**steps * near.values[entries]
    return scores


# helpers --------------------------------------------------------------------------------------


def _attend(q: Tensor, k: Tensor, v: Tensor, visible: Tensor, heads: int) -> Tensor:
    """Attend by scaled dot products where ``visible`` says so: [n, S, d] to [n or 1, K, d]."""
    q, k, v = (part.unflatten(-1, (heads, -1)) for part in (q, k, v))
    scores = torch.einsum(
        "nshc,nkhc->nhsk", q * q.shape[-1] ** -0.5, k.expand(q.shape[0], -1, -1, -1)
    )
    weights = (scores + blocking_bias(visible, scores.dtype)).softmax(-1)
    return torch.einsum("nhsk,nkhc->nshc", weights, v.expand(q.shape[0], -1, -1, -1)).flatten(2)
