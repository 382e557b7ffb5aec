"""A generator's weights in the form that inference uses: cast once, joined, without module calls.

Under autocast every operator would cast its weights and results anew, and calling a module costs
as much as a small product. :class:`CompiledWeights` holds what inference reads, in the dtype it
computes in: the projected tokens, the cross-attention keys and values of all layers as one map,
the query weights scaled. The modules of :mod:`~recbole_bbqrec.generator.network` remain the
definition; tests compare the two.
"""

from __future__ import annotations

from typing import NamedTuple, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from recbole_bbqrec.generator.batch.encoded_history import Memory
from recbole_bbqrec.generator.head.item_head import NoItemHead
from recbole_bbqrec.generator.head.item_scores import ItemScores
from recbole_bbqrec.generator.inference.fused_linear import Affine
from recbole_bbqrec.generator.inference.shortlist import NodeGroups, node_groups
from recbole_bbqrec.generator.items.catalogue import Catalogue
from recbole_bbqrec.generator.network.attention import SimilarityGate, blocking_bias
from recbole_bbqrec.generator.network.code_decoder import HistoryStart
from recbole_bbqrec.generator.network.layers import DecoderLayer, EncoderLayer
from recbole_bbqrec.generator.network.seq2seq import Generator


class EncoderWeights(NamedTuple):
    """An encoder layer; the queries' part of ``qkv`` is scaled by C ** -0.5."""

    attention_norm: Affine
    qkv: Affine
    out: Affine
    gate: Tensor | None  # [H, K + 1, C]
    feed_norm: Affine
    feed_in: Affine
    feed_out: Affine


class DecoderWeights(NamedTuple):
    """A decoder layer; the maps that make queries are scaled by C ** -0.5."""

    self_norm: Affine
    qkv: Affine
    self_out: Affine
    cross_norm: Affine
    cross_query: Affine
    cross_out: Affine
    feed_norm: Affine
    feed_in: Affine
    feed_out: Affine


class CompiledWeights:
    """Weights of ``generator`` in ``dtype``; tables that are only looked up keep their own dtype.

    * ``table``: projected codes.
    * ``wide``: the dtype of softmax and logits, at least float32.
    * ``level``: [L, d] and ``position``: [max_history, d], added before and after the norm.
    * ``heads``: for each level, weight [M * N, d] and bias.
    * ``causal``: [T, 1, 1, T] for max_history items, hides items after the query's.
    * ``head_sums``: [d, H], 1 where a channel belongs to a head.
    """

    def __init__(self, generator: Generator, dtype: torch.dtype) -> None:
        config, encoder, decoder = generator.config, generator.encoder, generator.decoder
        self.config, self.dtype = config, dtype
        self.wide = torch.promote_types(dtype, torch.float32)
        self._source = _Source(generator)
        self.table = encoder.tokens.project()
        self.level, self.position = encoder.level.detach(), encoder.position.weight.detach()
        self.encoder_input_norm = _uncast(encoder.input_norm)
        self.encoder = [self._encoder(layer) for layer in encoder.layers]
        self.encoder_norm = self._affine(encoder.norm)
        self.decoder_level = decoder.level.detach()
        start = decoder.start
        self.start = self._affine(start) if isinstance(start, HistoryStart) else None
        self.decoder_input_norm = _uncast(decoder.input_norm)
        self.decoder = [self._decoder(layer) for layer in decoder.layers]
        self.decoder_norm = self._affine(decoder.norm)
        self.memory = Affine(
            self._cast(torch.cat([layer.cross_kv.weight for layer in decoder.layers])),
            self._cast(torch.cat([layer.cross_kv.bias for layer in decoder.layers])),
        )
        self.heads = [
            Affine(
                self._cast(decoder.head.weights(self.table, level)),
                self._cast(decoder.head.bias[level]),
            )
            for level in range(config.levels)
        ]
        device, most = self.level.device, config.max_history
        seen = torch.ones(most, most, dtype=torch.bool, device=device).tril()
        self.causal = blocking_bias(seen, self.wide)[:, None, None]
        width = config.hidden_size // config.n_heads
        self.head_sums = torch.eye(config.n_heads, dtype=dtype, device=device)
        self.head_sums = self.head_sums.repeat_interleave(width, 0)
        self._item_keys: tuple[Catalogue, Tensor, Tensor] | None = None
        self._node_groups: tuple[Tensor, int, NodeGroups | None] | None = None
        self._item_inputs: tuple[Catalogue, Tensor] | None = None

    def are_those_of(self, dtype: torch.dtype) -> bool:
        """Return True if they are in ``dtype`` and no parameter has changed since."""
        return self.dtype == dtype and self._source.unchanged()

    def item_inputs(self, generator: Generator, catalogue: Catalogue) -> Tensor:
        """Compute :meth:`HistoryEncoder.item_inputs` of all items once: [n_items, d or 1]."""
        if self._item_inputs is None or self._item_inputs[0] is not catalogue:
            every = torch.arange(catalogue.n_items, device=catalogue.codes.device)
            self._item_inputs = catalogue, generator.encoder.item_inputs(catalogue, every)
        return self._item_inputs[1]

    def item_scores(
        self, generator: Generator, catalogue: Catalogue, memory: Memory
    ) -> ItemScores | None:
        """Return the item head after each history; its keys are computed once. None without."""
        if isinstance(generator.item_head, NoItemHead):
            return None
        return ItemScores.at_end(catalogue, *self.item_keys(generator, catalogue), memory)

    def item_keys(self, generator: Generator, catalogue: Catalogue) -> tuple[Tensor, Tensor]:
        """Return the item head's keys [I, d] of all items and its repeat logits [max_history]."""
        if self._item_keys is None or self._item_keys[0] is not catalogue:
            head = generator.item_head
            assert not isinstance(head, NoItemHead)
            keys = head.keys(catalogue, generator.encoder.items).to(self.wide)
            self._item_keys = catalogue, keys, head.repeat().detach()
        return self._item_keys[1:]

    def shortlist(self, scores: ItemScores, num_beams: int) -> NodeGroups | None:
        """Return groups of first-level nodes, made once; None to score all items."""
        known = self._node_groups
        if known is None or known[0] is not scores.keys or known[1] != num_beams:
            found = node_groups(scores.trie, scores.keys, self.config.item_head_ranking, num_beams)
            self._node_groups = known = scores.keys, num_beams, found
        return known[2]

    def _cast(self, tensor: Tensor) -> Tensor:
        return tensor.detach().to(self.dtype)

    def _affine(self, module: nn.Linear | nn.LayerNorm) -> Affine:
        return Affine(self._cast(module.weight), self._cast(module.bias))

    def _scaled(self, module: nn.Linear, rows: int) -> Affine:
        """Scale the first ``rows`` outputs, queries, by C ** -0.5."""
        scale = torch.ones_like(module.bias)
        scale[:rows] = (self.config.hidden_size // self.config.n_heads) ** -0.5
        return Affine(self._cast(module.weight * scale[:, None]), self._cast(module.bias * scale))

    def _feed(self, feed: nn.Sequential) -> tuple[Affine, Affine]:
        """Return both maps. The fused ReLU hides a NaN, so copy one to the second bias."""
        first, second = (self._affine(cast(nn.Linear, feed[place])) for place in (0, 3))
        lost = 0.0 * (first.weight.sum() + first.bias.sum())
        return first, Affine(second.weight, second.bias + lost)

    def _encoder(self, layer: EncoderLayer) -> EncoderWeights:
        gate = layer.gate
        return EncoderWeights(
            self._affine(layer.attention_norm),
            self._scaled(layer.qkv, self.config.hidden_size),
            self._affine(layer.attention_out),
            gate.by_head().detach().contiguous() if isinstance(gate, SimilarityGate) else None,
            self._affine(layer.feed_norm),
            *self._feed(layer.feed),
        )

    def _decoder(self, layer: DecoderLayer) -> DecoderWeights:
        return DecoderWeights(
            self._affine(layer.self_norm),
            self._scaled(layer.qkv, self.config.hidden_size),
            self._affine(layer.self_out),
            self._affine(layer.cross_norm),
            self._scaled(layer.cross_query, self.config.hidden_size),
            self._affine(layer.cross_out),
            self._affine(layer.feed_norm),
            *self._feed(layer.feed),
        )


class _Source:
    """The parameters of a module as they were, to notice any change of them.

    A write raises a tensor's version, but for a fused optimizer's: so any optimizer's step counts
    as a change. A move to another device or dtype, and a load that assigns tensors, give it other
    memory; ``_memory`` keeps the old one from being used again.
    """

    optimizer_steps = 0

    def __init__(self, module: nn.Module) -> None:
        self._cells = [
            (part._parameters, name)
            for part in module.modules()
            for name, parameter in part._parameters.items()
            if parameter is not None
        ]
        self._steps, self._state = _Source.optimizer_steps, self._read()
        self._memory = [parameter.detach() for parameter in module.parameters()]

    def unchanged(self) -> bool:
        return self._steps == _Source.optimizer_steps and self._read() == self._state

    def _read(self) -> list[tuple[int, int]]:
        parameters = [part[name] for part, name in self._cells]
        return [(p.data_ptr(), p._version) for p in parameters if p is not None]


def _count_step(*_: object) -> None:
    _Source.optimizer_steps += 1


register_optimizer_step_post_hook(_count_step)

_COMPILED: WeakKeyDictionary[Generator, CompiledWeights] = WeakKeyDictionary()


@torch.no_grad()
def compiled(generator: Generator) -> CompiledWeights:
    """Return the weights of ``generator`` as they are now, in autocast's dtype or their own.

    They are compiled anew when a parameter or the dtype has changed. A write through
    ``parameter.data`` goes unseen: call :func:`forget` after it.
    """
    parameter = generator.decoder.level
    device, dtype = parameter.device, parameter.dtype
    if dtype == torch.float32 and torch.is_autocast_enabled(device.type):
        dtype = torch.get_autocast_dtype(device.type)
    weights = _COMPILED.get(generator)
    if weights is None or not weights.are_those_of(dtype):
        with torch.autocast(device.type, enabled=False):
            weights = _COMPILED[generator] = CompiledWeights(generator, dtype)
    return weights


def forget(generator: Generator) -> None:
    """Free the compiled weights of ``generator``, such as when it starts to train."""
    _COMPILED.pop(generator, None)


def _uncast(norm: nn.LayerNorm) -> Affine:
    """Keep the parameters' dtype: the norm follows a sum of looked-up rows."""
    return Affine(norm.weight.detach(), norm.bias.detach())
