"""The decoder: from an encoded history to the logits of the next item's codes, level by level.

The decoder has no positions of its own: what tells it the last item is its start
(:class:`HistoryStart`), the causal mask, or encoder positions that count from the last item.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from recbole_bbqrec.generator.batch.encoded_history import Memory
from recbole_bbqrec.generator.batch.packing import Packing
from recbole_bbqrec.generator.batch.token_table import TokenTable
from recbole_bbqrec.generator.network.attention import blocking_bias
from recbole_bbqrec.generator.network.decoder_rows import Steps
from recbole_bbqrec.generator.network.layers import DecoderLayer, KeysValues
from recbole_bbqrec.generator.settings import GeneratorSettings
from recbole_bbqrec.nn.dropout import Dropout


class CodeDecoder(nn.Module):
    """Predicts the codes of a level from an encoded history and the levels before."""

    def __init__(self, config: GeneratorSettings) -> None:
        super().__init__()
        self.config = config
        d = config.hidden_size
        self.level = nn.Parameter(torch.empty(config.levels, d))  # row 0 is the start token
        self.layers = cast(
            "Sequence[DecoderLayer]",
            nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers)),
        )
        self.start: HistoryStart | NoStart
        self.start = HistoryStart(config) if config.decoder_start == "history" else NoStart()
        self.head = TiedCodeHead(config) if config.tie_codes else CodeHead(config)
        # Normalise, or the first layer's output would drown the small embeddings.
        self.input_norm = nn.LayerNorm(d)
        self.norm = nn.LayerNorm(d)
        self.dropout = Dropout(config.dropout)

    def keys_values(self, memory: Memory) -> list[KeysValues]:
        """Return cross-attention keys and values of every layer, each [B, H, T * L, C]."""
        return [layer.memory_keys_values(memory.states, memory.cells) for layer in self.layers]

    def forward(
        self,
        memory: Memory,
        keys_values: Sequence[KeysValues],
        prefix: Tensor,
        slots: Packing,
        last: Tensor,
        steps: Steps,
    ) -> Tensor:
        """Teacher-forced states of the first levels of n packed slots, as ``steps`` lays them out.

        ``prefix`` int64 [n, l - 1, M]: the codes of the levels so far; ``slots``: where they lie
        in a [B, S] grid; ``last`` int64 [B, S]: the position of the last item each slot attends
        to (S may be 1 for all alike). No level sees a later one, so levels beyond a slot's depth
        need not be computed. Returns [R, d], slot by slot; R is the sum of the depths, of which
        the largest is l. A slot's row j predicts level j.
        """
        n_levels, n_tokens = prefix.shape[1] + 1, self.config.history_levels
        start = torch.zeros(len(prefix), 1, self.config.hidden_size, device=prefix.device)
        x = start.to(self.level.dtype)
        if n_levels > 1:
            x = torch.cat([x, memory.table.embed(prefix)], dim=1)  # [n, l, d]
        x = self.start.add_to(x + self.level[:n_levels], memory, slots, last)
        x = self.dropout(self.input_norm(steps.grid.pack(x)))  # [R, d]
        if last.shape[1] > 1:
            of_rows = torch.repeat_interleave(
                slots.pack(last), steps.depth, output_size=len(steps.grid)
            )  # [R]
            last = steps.cells.unpack(of_rows)  # [B, W]
        item = torch.arange(memory.cells.shape[1], device=last.device)
        visible = (item <= last[..., None]).repeat_interleave(n_tokens, dim=2)
        bias = blocking_bias(visible, x.dtype).unsqueeze(1)  # [B, 1, W or 1, T * L]
        for layer, pair in zip(self.layers, keys_values):
            x = layer(x, steps, pair, bias)
        normed: Tensor = self.norm(x)
        return normed

    def every_level(
        self,
        memory: Memory,
        keys_values: Sequence[KeysValues],
        prefix: Tensor,
        slots: Packing,
        last: Tensor,
        steps: Steps | None = None,
    ) -> Tensor:
        """Decode all l levels of each slot, as :meth:`forward` does: [n, l, d]."""
        n_levels = prefix.shape[1] + 1
        if steps is None:
            depth = torch.full((len(prefix),), n_levels, device=prefix.device)
            steps = Steps(slots, depth, n_levels)
        rows: Tensor = self(memory, keys_values, prefix, slots, last, steps)
        states: Tensor = rows.unflatten(0, (-1, n_levels))
        return states


class HistoryStart(nn.Linear):
    """Projects the encoder's states of the last visible item, [n, L * d], to d."""

    def __init__(self, config: GeneratorSettings) -> None:
        super().__init__(config.history_levels * config.hidden_size, config.hidden_size)

    def add_to(self, x: Tensor, memory: Memory, slots: Packing, last: Tensor) -> Tensor:
        """Add to the decoder's inputs ``x`` [n, l, d] what they take from the item at ``last``.

        ``slots`` and ``last`` as in :meth:`CodeDecoder.forward`.
        """
        grid = memory.cells.unpack(self(memory.states.flatten(1)))  # [B, T, d]
        history = grid.gather(1, last.unsqueeze(-1).expand(-1, -1, grid.shape[-1]))  # [B, S, d]
        return x + slots.pack(history.expand(*slots.shape, -1)).unsqueeze(1)


class NoStart(nn.Module):
    """Stands in for :class:`HistoryStart`: cross-attention alone brings in the history."""

    def add_to(self, x: Tensor, memory: Memory, slots: Packing, last: Tensor) -> Tensor:
        """Return ``x``."""
        return x


class TiedCodeHead(nn.Module):
    """Logits of codes, whose output weights are the projected token embeddings.

    The code c of signal m is column m * N + c.
    """

    def __init__(self, config: GeneratorSettings) -> None:
        super().__init__()
        n_columns = config.n_signals * config.codebook_size
        self.bias = nn.Parameter(torch.zeros(config.levels, n_columns))

    def weights(self, table: TokenTable, level: int) -> Tensor:
        """Return the output weights of a level's codes: [M * N, d]."""
        return table.output_weight(level)

    def forward(self, hidden: Tensor, table: TokenTable, level: int) -> Tensor:
        """Return logits at ``level``: [..., d] -> [..., M * N], float32 or wider."""
        weight = self.weights(table, level).to(hidden.dtype)
        logits = nn.functional.linear(hidden, weight, self.bias[level])
        return logits.to(torch.promote_types(logits.dtype, torch.float32))


class CodeHead(TiedCodeHead):
    """Logits of codes with output weights of their own."""

    def __init__(self, config: GeneratorSettings) -> None:
        super().__init__(config)
        shape = *self.bias.shape, config.hidden_size
        self.weight = nn.Parameter(torch.empty(shape))
        nn.init.normal_(self.weight, 0.0, config.initializer_range)

    def weights(self, table: TokenTable, level: int) -> Tensor:
        """Return the output weights of a level's codes: [M * N, d]."""
        return self.weight[level]
