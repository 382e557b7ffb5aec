"""One user's live history: encoded event by event, and searched with few and cheap operations.

The batch path (:mod:`.encoding`, :mod:`.beam`) lays out many users side by side. For a single one
nearly all its time is the overhead of several hundred small operators of torch, and NumPy's cost a
fraction of that. So this is the same network and the same search again, in NumPy, without batches,
padding and packing. An event costs the encoder one position: a causal encoder never changes what
it made of earlier items. The results are those of the batch path up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch

from recbole_bbqrec.generator.inference.compiled_weights import CompiledWeights
from recbole_bbqrec.generator.items.catalogue import Catalogue
from recbole_bbqrec.generator.network.seq2seq import Generator
from recbole_bbqrec.nn.arrays import (
    array,
    arrays,
    expand,
    fed_forward,
    group_logsumexp,
    largest,
    linear,
    normed,
    softmax,
)

_READ = (  # of the weights
    "causal", "decoder", "decoder_input_norm", "decoder_level", "decoder_norm", "encoder",
    "encoder_input_norm", "encoder_norm", "heads", "level", "memory", "position", "start",
)  # fmt: skip


class _Beams(NamedTuple):
    """Nodes, their scores, and the decoder row that each descends from, each [W]."""

    nodes: np.ndarray
    scores: np.ndarray
    rows: np.ndarray


class _Network:
    """Arrays that all users share: of the weights, the item head and the catalogue."""

    @torch.no_grad()
    def __init__(
        self, generator: Generator, catalogue: Catalogue, weights: CompiledWeights
    ) -> None:
        self.config, self.catalogue, self.trie = weights.config, catalogue, catalogue.trie
        trie, config, near = catalogue.trie, weights.config, catalogue.placed_neighbours
        self.parts = SimpleNamespace(**{name: arrays(getattr(weights, name)) for name in _READ})
        self.heads = config.n_heads, config.hidden_size // config.n_heads
        self.codes, self.rows = array(catalogue.codes), array(weights.table.rows.flatten(0, 1))
        self.offsets = array(weights.table.offsets)  # [L, M]
        self.own = array(weights.item_inputs(generator, catalogue))  # [n_items, d or 1]
        keys, repeat = weights.item_keys(generator, catalogue)
        # [d, I]: a product with one state is three times as fast as with [I, d].
        self.keys, self.repeat = np.ascontiguousarray(array(keys).T), array(repeat)
        self.vectors = array(catalogue.vectors) if config.similarity else None
        self.near = None if near is None else arrays((near.pointer, near.items, near.values))
        self.decay = 0.0 if near is None else near.decay
        self.pointers = [array(trie.item_ptr(level)) for level in range(trie.levels)]
        self.roots = array(trie.item_nodes[trie.leaf_items, 0])  # [I]
        self.children, self.tokens = arrays(trie.child_ptr), arrays(trie.codes)
        self.branches, self.root_columns = (
            arrays(trie.branches),
            array(trie.root_columns.t().contiguous()),
        )
        self.leaf_items, self.places = array(trie.leaf_items), array(trie.item_places)
        self.columns = np.arange(config.n_signals) * config.codebook_size


_NETWORKS: WeakKeyDictionary[CompiledWeights, _Network] = WeakKeyDictionary()


class OneUser:
    """A history that grows, and the best items after it; for networks that it :meth:`serves`.

    ``weights`` are those of ``generator`` and must not change afterwards; all users share what is
    made of them.
    """

    def __init__(
        self, generator: Generator, catalogue: Catalogue, weights: CompiledWeights
    ) -> None:
        net = _NETWORKS.get(weights)
        if net is None or net.catalogue is not catalogue:
            net = _NETWORKS[weights] = _Network(generator, catalogue, weights)
        self.weights, self._net, config = weights, net, weights.config
        shape = 2, config.n_heads, config.max_history, net.heads[1]
        # Keys and values of the encoder's layers and of the decoder's.
        self._past = [np.empty(shape, net.rows.dtype) for _ in weights.encoder]
        self._cross = [np.empty(shape, net.rows.dtype) for _ in weights.decoder]
        self._items: list[int] = []
        self._last = np.empty((1, config.hidden_size), net.rows.dtype)  # the encoder's last state
        self._bonus = np.zeros(len(net.leaf_items), net.keys.dtype)
        self._root: tuple[np.ndarray, np.ndarray] | None = None

    @staticmethod
    def serves(weights: CompiledWeights) -> bool:
        """Return True for the networks that are supported, among them the default one.

        The encoder reads an item as one token and sees no later ones, every item is scored, and
        all is computed on the CPU in float32 or wider.
        """
        config = weights.config
        causal = config.history_encoding == "causal" and config.history_tokens == "item"
        headed = config.item_head and config.item_head_ranking == "exact"
        exact = weights.dtype == weights.wide and weights.level.device.type == "cpu"
        return causal and headed and exact

    def read(self, items: Sequence[int]) -> int:
        """Encode the history ``items``, 1 .. max_history internal ids, oldest first.

        Returns the number of items that the encoder read: those appended since the last call, or
        all where the history does not begin with the one before.
        """
        known = len(self._items)
        if list(items[:known]) != self._items:
            known = 0
        self._items = list(items)
        if known < len(items):
            self._encode(np.array(self._items), known)
            self._add_bonus(known)
            self._root = None
        return len(items) - known

    def best(
        self, num_beams: int, top_k: int, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find the best items as :func:`~.beam.beam_search` does: int64 [K], and scores [K].

        ``allowed`` bool [n_items]: the items that may be listed; None: all.
        """
        if self._root is None:
            every = self._every()
            self._root = every, self._root_masses(every)
        kept = None if allowed is None else allowed[self._net.leaf_items]  # [I]
        past: list[list[np.ndarray]] = [[] for _ in self._cross]
        beams = self._first_level(past, num_beams, self._open(0, kept))
        for level in range(1, self._net.trie.levels):
            beams = self._next_level(past, level, beams, num_beams, self._open(level, kept))
        return self._listed(beams, top_k, kept)

    # the network ----------------------------------------------------------------------------

    def _encode(self, items: np.ndarray, start: int) -> None:
        """Encode ``items`` int64 [T] from place ``start`` on, the ones before being known."""
        net, parts = self._net, self._net.parts
        new, end = items[start:], len(items)
        x = net.rows[net.codes[new] + net.offsets].sum((1, 2))  # [S, d]
        x = x + net.own[new] + parts.level
        position = parts.position[start:end]
        if net.config.norm_positions:
            x = normed(x + position, parts.encoder_input_norm)
        else:
            x = normed(x, parts.encoder_input_norm) + position
        buckets = None
        if net.vectors is not None:  # as similarity_buckets()
            most = net.config.similarity_buckets
            cosine = net.vectors[new] @ net.vectors[items].T
            buckets = np.rint((cosine + 1.0) * (most / 2)).clip(0, most).astype(np.int64)  # [S, T]
        for layer, past in zip(parts.encoder, self._past):
            x = self._encoder_layer(x, layer, past, start, buckets)
        x = normed(x, parts.encoder_norm)
        self._last = x[-1:]
        mapped = linear(x, parts.memory).reshape(len(x), len(self._cross), 2, *net.heads)
        for index, both in enumerate(self._cross):
            both[:, :, start:end] = mapped[:, index].transpose(1, 2, 0, 3)  # [2, H, S, C]

    def _encoder_layer(
        self, x: np.ndarray, layer: Any, past: np.ndarray, start: int, buckets: np.ndarray | None
    ) -> np.ndarray:
        """Transform ``x`` [S, d]; ``past`` [2, H, max_history, C] keeps keys and values."""
        n_new, end = len(x), start + len(x)
        qkv = linear(normed(x, layer.attention_norm), layer.qkv)
        parts = qkv.reshape(n_new, 3, *self._net.heads).transpose(1, 2, 0, 3)  # [3, H, S, C]
        past[:, :, start:end] = parts[1:]
        keys, values = past[:, :, :end]  # [H, T, C]
        scores = parts[0] @ keys.transpose(0, 2, 1)  # [H, S, T]
        if n_new > 1:
            scores += self._net.parts.causal[start:end, 0, 0, :end]
        shares = softmax(scores)
        if buckets is None or layer.gate is None:
            mixed = shares @ values  # [H, S, C]
        else:
            gated = layer.gate[:, buckets] * values[:, None]  # [H, S, T, C]
            mixed = (shares[:, :, None] @ gated)[:, :, 0]
        x = x + linear(mixed.transpose(1, 0, 2).reshape(n_new, -1), layer.out)
        return fed_forward(x, layer.feed_norm, layer.feed_in, layer.feed_out)

    def _decode(self, past: list[list[np.ndarray]], tokens: np.ndarray, level: int) -> np.ndarray:
        """Return the logits of a level after ``tokens`` [R, d] of the one before: [R, M * N].

        ``past`` holds keys and values [R, 2 * d] of each layer and level so far.
        """
        net = self._net.parts
        x = tokens + net.decoder_level[level]
        if net.start is not None:
            x = x + linear(self._last, net.start)
        x = normed(x, net.decoder_input_norm)
        for layer, before, cross in zip(net.decoder, past, self._cross):
            x = self._decoder_layer(x, layer, before, cross[:, :, : len(self._items)])
        return linear(normed(x, net.decoder_norm), net.heads[level])

    def _decoder_layer(
        self, x: np.ndarray, layer: Any, past: list[np.ndarray], cross: np.ndarray
    ) -> np.ndarray:
        """Transform ``x`` [R, d]; ``cross`` [2, H, T, C]: keys and values of the history."""
        heads = len(x), *self._net.heads
        qkv = linear(normed(x, layer.self_norm), layer.qkv)
        d = x.shape[1]
        past.append(qkv[:, d:])
        query = qkv[:, :d].reshape(heads)
        mixed = qkv[:, 2 * d :]  # the first level sees itself alone
        if len(past) > 1:
            pairs = np.stack(past).reshape(len(past), heads[0], 2, *heads[1:])  # [l, R, 2, H, C]
            shares = softmax(np.add.reduce(query * pairs[:, :, 0], -1), 0)[..., None]
            mixed = np.add.reduce(shares * pairs[:, :, 1], 0).reshape(x.shape)
        x = x + linear(mixed, layer.self_out)
        query = linear(normed(x, layer.cross_norm), layer.cross_query).reshape(heads)
        shares = softmax(query.transpose(1, 0, 2) @ cross[0].transpose(0, 2, 1))  # [H, R, T]
        mixed = (shares @ cross[1]).transpose(1, 0, 2).reshape(x.shape)
        x = x + linear(mixed, layer.cross_out)
        return fed_forward(x, layer.feed_norm, layer.feed_in, layer.feed_out)

    # the item head ----------------------------------------------------------------------------

    def _every(self) -> np.ndarray:
        """Score all items, [I], as the item head does."""
        scores: np.ndarray = self._last[0] @ self._net.keys + self._bonus
        places = self._net.places[self._items[::-1]]  # the last item has the first repeat logit
        known = places >= 0
        np.add.at(scores, places[known], self._net.repeat[: len(places)][known])
        return scores

    def _root_masses(self, every: np.ndarray) -> np.ndarray:
        """Return the log-sum-exp over the items below each first-level node: [n_0]."""
        low, peak, pointer = every.min(), every.max(), self._net.pointers[0]
        if peak - low > -np.log(np.finfo(every.dtype).tiny):  # a node needs a peak of its own
            return group_logsumexp(every, pointer[:-1], np.diff(pointer))
        total = np.bincount(self._net.roots, np.exp(every - peak))
        masses: np.ndarray = np.log(total).astype(every.dtype) + peak
        return masses

    def _add_bonus(self, start: int) -> None:
        """Let the neighbours of the items from place ``start`` on add to the bonus."""
        if self._net.near is None:
            return
        if start == 0:
            self._bonus[:] = 0
        pointer, near, values = self._net.near
        for item in self._items[start:]:
            entries = slice(pointer[item], pointer[item + 1])
            self._bonus *= self._net.decay
            np.add.at(self._bonus, near[entries], values[entries])

    # the search -------------------------------------------------------------------------------

    def _open(self, level: int, kept: np.ndarray | None) -> np.ndarray | None:
        """Return True for nodes with an item that is ``kept`` below: bool [n_l]; None: all."""
        return (
            None if kept is None else np.logical_or.reduceat(kept, self._net.pointers[level][:-1])
        )

    def _first_level(
        self, past: list[list[np.ndarray]], width: int, is_open: np.ndarray | None
    ) -> _Beams:
        assert self._root is not None
        logits = self._decode(past, np.zeros_like(self._last), 0)[0]  # [M * N]
        scores = self._root[1] + np.add.reduce(logits.take(self._net.root_columns), 0)
        peak = scores.max()
        scores -= np.log(np.exp(scores - peak).sum()) + peak
        nodes = np.arange(len(scores))
        return self._kept(0, _Beams(nodes, scores, np.zeros_like(nodes)), width, is_open)

    def _next_level(
        self,
        past: list[list[np.ndarray]],
        level: int,
        beams: _Beams,
        width: int,
        is_open: np.ndarray | None,
    ) -> _Beams:
        """Find the best children; a node without a choice below needs no decoder."""
        net, (nodes, scores, rows) = self._net, beams
        ahead = net.branches[level - 1][nodes]  # [W]
        pointer = net.children[level]
        if not ahead.any():  # each has one child
            return self._kept(level, _Beams(pointer[nodes], scores, rows), width, is_open)
        parents, rows = nodes[ahead], rows[ahead]  # [R]
        for before in past:
            before[:] = [pair[rows] for pair in before]
        tokens = net.rows[net.tokens[level - 1][parents] + net.offsets[level - 1]].sum(1)
        logits = self._decode(past, tokens, level)  # [R, M * N]
        counts = pointer[parents + 1] - pointer[parents]
        owner, child = expand(pointer[parents], counts)  # [E]
        gain = logits[owner[:, None], net.tokens[level][child] + net.columns].sum(1)
        gain += self._masses(level, child)
        gain -= group_logsumexp(gain, np.cumsum(counts) - counts, counts)[owner]
        alone = ~ahead
        found = _Beams(
            np.concatenate([child, pointer[nodes[alone]]]),
            np.concatenate([scores[ahead][owner] + gain, scores[alone]]),
            np.concatenate([owner, np.zeros(int(alone.sum()), owner.dtype)]),
        )
        return self._kept(level, found, width, is_open)

    def _masses(self, level: int, nodes: np.ndarray) -> np.ndarray:
        """Return the log-sum-exp of the scores of the items below ``nodes`` int64 [E]: [E]."""
        assert self._root is not None
        every, pointer = self._root[0], self._net.pointers[level]
        first = pointer[nodes]
        counts = pointer[nodes + 1] - first
        if counts.max() == 1:
            return every[first]  # type: ignore[no-any-return]
        return group_logsumexp(every[expand(first, counts)[1]], np.cumsum(counts) - counts, counts)

    def _kept(self, level: int, beams: _Beams, width: int, is_open: np.ndarray | None) -> _Beams:
        """Keep the best ``width`` beams; an item has an equal share of its leaf's probability."""
        nodes, scores, rows = beams
        if level == self._net.trie.levels - 1 and self._net.trie.several_in_leaf:
            counts = self._net.pointers[level][nodes + 1] - self._net.pointers[level][nodes]
            scores = scores - np.log(counts.astype(scores.dtype))
        if is_open is not None:
            scores = np.where(is_open[nodes], scores, -np.inf).astype(scores.dtype)
        if len(nodes) <= width:
            return _Beams(nodes, scores, rows)
        chosen = largest(scores, width)
        return _Beams(nodes[chosen], scores[chosen], rows[chosen])

    def _listed(
        self, beams: _Beams, top_k: int, kept: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """List the items of the beams' leaves, best first and ties by id."""
        first = self._net.pointers[-1][beams.nodes]
        owner, places = expand(first, self._net.pointers[-1][beams.nodes + 1] - first)
        items, scores = self._net.leaf_items[places], beams.scores[owner]
        if kept is not None:
            scores = np.where(kept[places], scores, -np.inf).astype(scores.dtype)
        order = np.lexsort((items, -scores))[:top_k]
        return items[order], scores[order]
