"""A generator's weights as inference wants them: cast once, joined, without module calls.

Under autocast every operator would cast its weights and results anew, and calling a module costs
as much as a small product. :class:`Plan` holds what decoding reads, in the dtype it computes in:
the projected tokens, the cross-attention keys and values of all layers as one map, the query
weights scaled. The layers of :mod:`~recbole_bbqrec.generator.network.layers` remain the
definition; tests compare the two.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from recbole_bbqrec.generator.batch.encoded_history import Memory
from recbole_bbqrec.generator.head.item_head import ItemScores
from recbole_bbqrec.generator.inference.fused_linear import Affine
from recbole_bbqrec.generator.items.catalogue import Catalogue
from recbole_bbqrec.generator.network.attention import blocking_bias
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


class Plan:
    """Weights of ``generator`` in ``dtype``; tables that are only looked up keep their own dtype.

    * ``table``: [M, L * N, d], projected codes; ``token_rows``: int64 [L, M], what to add to the
      codes of a level to get their rows in the flattened table.
    * ``wide``: the dtype of softmax and logits, at least float32.
    * ``level``: [L, d] and ``position``: [max_history, d], added before and after the norm.
    * ``heads``: for each level, weight [M * N, d] and bias.
    * ``causal``: [T, 1, 1, T] for max_history items, hides items after the query's.
    * ``head_sums``: [d, H], 1 where a channel belongs to a head.
    """

    def __init__(self, generator: Generator, dtype: torch.dtype) -> None:
        config = generator.config
        self.config, self.dtype = config, dtype
        self.wide = torch.promote_types(dtype, torch.float32)
        self.parameters = list(generator.parameters())
        self.versions = _versions(self.parameters)
        self.table = generator.tokens.project().detach()
        device = self.table.device
        signals = torch.arange(config.n_signals, device=device)
        levels = torch.arange(config.levels, device=device)
        self.token_rows = (signals * config.levels + levels[:, None]) * config.codebook_size
        self.level = generator.encoder_level.detach()
        self.position = generator.position.weight.detach()
        self.decoder_level = generator.decoder_level.detach()
        self.start = None if generator.start is None else self._affine(generator.start)
        self.encoder_input_norm = _own(generator.encoder_input_norm)
        self.decoder_input_norm = _own(generator.decoder_input_norm)
        self.encoder_norm = self._affine(generator.encoder_norm)
        self.decoder_norm = self._affine(generator.decoder_norm)
        self.encoder = [self._encoder(layer) for layer in generator.encoder]  # type: ignore
        self.decoder = [self._decoder(layer) for layer in generator.decoder_layers]
        pairs = [layer.cross_kv for layer in generator.decoder_layers]
        self.memory = Affine(
            self._cast(torch.cat([pair.weight for pair in pairs])),
            self._cast(torch.cat([pair.bias for pair in pairs])),
        )
        self.heads = [self._head(generator, level) for level in range(config.levels)]
        seen = torch.ones(config.max_history, config.max_history, dtype=torch.bool, device=device)
        self.causal = blocking_bias(seen.tril(), self.wide)[:, None, None]
        width = config.hidden_size // config.n_heads
        self.head_sums = torch.eye(config.n_heads, dtype=dtype, device=device)
        self.head_sums = self.head_sums.repeat_interleave(width, 0)

        self.repeat_logits = generator.repeat_logits().detach()
        self._item_keys: tuple[Catalogue, Tensor] | None = None
        self._item_inputs: tuple[Catalogue, Tensor | None] | None = None

    def item_inputs(self, generator: Generator, catalogue: Catalogue) -> Tensor | None:
        """:meth:`Generator.item_inputs` of all items, computed once: [n_items, d] or None."""
        if self._item_inputs is None or self._item_inputs[0] is not catalogue:
            every = torch.arange(catalogue.n_items, device=catalogue.codes.device)
            self._item_inputs = catalogue, generator.item_inputs(catalogue, every)
        return self._item_inputs[1]

    def item_scores(
        self, generator: Generator, catalogue: Catalogue, memory: Memory
    ) -> ItemScores | None:
        """The item head after each history; its keys are computed once. None without a head."""
        if not self.config.item_head:
            return None
        if self._item_keys is None or self._item_keys[0] is not catalogue:
            self._item_keys = catalogue, generator.item_keys(catalogue).to(self.wide)
        return ItemScores.at_end(catalogue, self._item_keys[1], self.repeat_logits, memory)

    def _cast(self, tensor: Tensor) -> Tensor:
        return tensor.detach().to(self.dtype)

    def _affine(self, module: nn.Linear | nn.LayerNorm) -> Affine:
        return Affine(self._cast(module.weight), self._cast(module.bias))

    def _scaled(self, module: nn.Linear, rows: int) -> Affine:
        """The first ``rows`` outputs, queries, times C ** -0.5."""
        scale = torch.ones_like(module.bias)
        scale[:rows] = (self.config.hidden_size // self.config.n_heads) ** -0.5
        return Affine(self._cast(module.weight * scale[:, None]), self._cast(module.bias * scale))

    def _feed(self, feed: nn.Sequential) -> tuple[Affine, Affine]:
        """Its two maps; a NaN in the first is put into the second, for a fused ReLU hides it."""
        first, second = self._affine(feed[0]), self._affine(feed[3])  # type: ignore[arg-type]
        lost = 0.0 * (first.weight.sum() + first.bias.sum())
        return first, Affine(second.weight, second.bias + lost)

    def _encoder(self, layer: EncoderLayer) -> EncoderWeights:
        return EncoderWeights(
            self._affine(layer.attention_norm),
            self._scaled(layer.qkv, self.config.hidden_size),
            self._affine(layer.attention_out),
            None if layer.gate is None else layer.gate().detach().contiguous(),
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

    def _head(self, generator: Generator, level: int) -> Affine:
        if generator.head_weight is None:
            weight = generator.tokens.head_weight(self.table, level)
        else:
            weight = generator.head_weight[level]
        return Affine(self._cast(weight), self._cast(generator.head_bias[level]))


def _own(norm: nn.LayerNorm) -> Affine:
    """In the parameters' dtype: it follows a sum of looked-up rows."""
    return Affine(norm.weight.detach(), norm.bias.detach())


@torch.no_grad()
def plan_of(generator: Generator) -> Plan:
    """The plan of ``generator`` as it is now, in autocast's dtype or that of its parameters.

    Kept on the generator, and built anew when a parameter or the dtype has changed; training and
    moves to another device or dtype forget it. Writes through ``parameter.data`` go unseen.
    """
    parameter = generator.decoder_level
    device, dtype = parameter.device, parameter.dtype
    if dtype == torch.float32 and torch.is_autocast_enabled(device.type):
        dtype = torch.get_autocast_dtype(device.type)
    kept = generator.plan
    if kept is None or kept.dtype != dtype or kept.versions != _versions(kept.parameters):
        with torch.autocast(device.type, enabled=False):
            kept = Plan(generator, dtype)
        generator.plan = kept
    return kept


def _versions(parameters: list[nn.Parameter]) -> list[int]:
    """Rise with every write to the parameters."""
    return [parameter._version for parameter in parameters]
