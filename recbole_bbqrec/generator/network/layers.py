"""Pre-norm transformer layers over packed tokens."""

from __future__ import annotations

from torch import Tensor, nn

from recbole_bbqrec.generator.batch.packing import Packing
from recbole_bbqrec.generator.network.attention import (
    NoGate,
    SimilarityGate,
    attend,
    merge_heads,
    split_heads,
)
from recbole_bbqrec.generator.network.decoder_rows import Steps
from recbole_bbqrec.generator.settings import GeneratorSettings
from recbole_bbqrec.nn.dropout import Dropout

KeysValues = tuple[Tensor, Tensor]


class FeedForward(nn.Sequential):
    """Linear, ReLU, dropout, Linear."""

    def __init__(self, config: GeneratorSettings) -> None:
        super().__init__(
            nn.Linear(config.hidden_size, config.inner_size),
            nn.ReLU(),
            Dropout(config.dropout),
            nn.Linear(config.inner_size, config.hidden_size),
        )


class EncoderLayer(nn.Module):
    """Self-attention among the tokens of a history, then a feed-forward network."""

    def __init__(self, config: GeneratorSettings) -> None:
        super().__init__()
        d = config.hidden_size
        self.n_heads = config.n_heads
        self.attention_norm = nn.LayerNorm(d)
        self.qkv = nn.Linear(d, 3 * d)
        self.attention_out = nn.Linear(d, d)
        self.gate: SimilarityGate | NoGate
        self.gate = SimilarityGate(config) if config.similarity else NoGate()
        self.feed_norm = nn.LayerNorm(d)
        self.feed = FeedForward(config)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, cells: Packing, bias: Tensor, buckets: Tensor | None) -> Tensor:
        """Transform ``x`` [n, L, d], the packed items of a [B, T] grid -> [n, L, d].

        ``bias`` broadcasts to [B, H, T * L, T * L]; ``buckets`` is int64 [B, T, T].
        """
        qkv = cells.unpack(self.qkv(self.attention_norm(x)))  # [B, T, L, 3 * d]
        q, k, v = (split_heads(y, self.n_heads) for y in qkv.flatten(1, 2).chunk(3, dim=-1))
        grid = merge_heads(self.gate(q, k, v, bias, buckets)).unflatten(
            1, (-1, x.shape[1])
        )  # [B, T, L, d]
        x = x + self.dropout(self.attention_out(cells.pack(grid)))
        result: Tensor = x + self.dropout(self.feed(self.feed_norm(x)))
        return result


class DecoderLayer(nn.Module):
    """Causal self-attention over the L tokens, cross-attention, feed-forward network."""

    def __init__(self, config: GeneratorSettings) -> None:
        super().__init__()
        d = config.hidden_size
        self.n_heads = config.n_heads
        self.self_norm = nn.LayerNorm(d)
        self.qkv = nn.Linear(d, 3 * d)
        self.self_out = nn.Linear(d, d)
        self.cross_norm = nn.LayerNorm(d)
        self.cross_query = nn.Linear(d, d)
        self.cross_kv = nn.Linear(d, 2 * d)
        self.cross_out = nn.Linear(d, d)
        self.feed_norm = nn.LayerNorm(d)
        self.feed = FeedForward(config)
        self.dropout = Dropout(config.dropout)

    def memory_keys_values(self, states: Tensor, cells: Packing) -> KeysValues:
        """Map encoder states [n, L, d] to cross-attention's keys and values, [B, H, T * L, C]."""
        both = cells.unpack(self.cross_kv(states)).flatten(1, 2)  # [B, T * L, 2 * d]
        keys, values = both.chunk(2, dim=-1)
        return split_heads(keys, self.n_heads), split_heads(values, self.n_heads)

    def forward(self, x: Tensor, steps: Steps, memory: KeysValues, bias: Tensor | None) -> Tensor:
        """Transform sequences of up to l levels: ``x`` [R, d], the packed levels -> [R, d].

        ``bias`` broadcasts to [B, H, W, T * L], W as in :class:`Steps`.
        """
        mixed = steps.attend(self.qkv(self.self_norm(x)), self.n_heads)
        x = x + self.dropout(self.self_out(mixed))
        query = steps.cells.unpack(self.cross_query(self.cross_norm(x)))  # [B, W, d]
        x = x + self.dropout(self.cross_out(steps.cells.pack(self._cross(query, memory, bias))))
        result: Tensor = x + self.dropout(self.feed(self.feed_norm(x)))
        return result

    def _cross(self, query: Tensor, memory: KeysValues, bias: Tensor | None) -> Tensor:
        """Attend to the history: [B, S, d] -> [B, S, d]."""
        return merge_heads(attend(split_heads(query, self.n_heads), *memory, bias))
