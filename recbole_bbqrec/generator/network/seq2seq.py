"""The phase-two network: an encoder-decoder transformer over semantic IDs (Eq. 1, 14-17).

Positions are absolute and the decoder is not told where a prefix ends: it sees no later item, and
learns to weigh items by position (telling it made no difference on a copying task).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from recbole_bbqrec.generator.batch.encoded_history import Memory, check_histories, check_targets
from recbole_bbqrec.generator.batch.packing import Packing, slots_of
from recbole_bbqrec.generator.batch.trie_paths import choices
from recbole_bbqrec.generator.head.head_loss import product_dtype
from recbole_bbqrec.generator.head.item_head import ItemScores
from recbole_bbqrec.generator.head.losses import code_loss, item_loss
from recbole_bbqrec.generator.items.catalogue import Catalogue
from recbole_bbqrec.generator.network.attention import (
    blocking_bias,
    history_bias,
    similarity_buckets,
)
from recbole_bbqrec.generator.network.decoder_rows import Steps
from recbole_bbqrec.generator.network.embedding import TokenEmbedding
from recbole_bbqrec.generator.network.layers import DecoderLayer, EncoderLayer, KeysValues
from recbole_bbqrec.generator.settings import GeneratorSettings
from recbole_bbqrec.nn.dropout import Dropout

if TYPE_CHECKING:
    from recbole_bbqrec.generator.inference.compiled_weights import Plan


# Adam moves a number by about the learning rate a step, and these have far to go.
_REPEAT_SCALE = 10.0


class Generator(nn.Module):
    """Predicts the next item's semantic ID, level by level (Eq. 1)."""

    def __init__(self, config: GeneratorSettings) -> None:
        super().__init__()
        self.config = config
        self.plan: Plan | None = None  # kept by plan_of()
        d, std = config.hidden_size, config.initializer_range
        self.tokens = TokenEmbedding(config)
        self.position = nn.Embedding(config.max_history, d)
        self.encoder_level = nn.Parameter(torch.empty(config.history_levels, d))
        # Row 0 is the start token.
        self.decoder_level = nn.Parameter(torch.empty(config.levels, d))
        self.items = nn.Embedding(config.n_items, d) if config.item_embedding else None
        self.features: nn.Linear | None = None  # into what the encoder reads of an item
        if config.feature_dim:
            self.features = nn.Linear(config.feature_dim, d, bias=False)
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.start: nn.Linear | None = None
        if config.decoder_start == "history":
            self.start = nn.Linear(config.history_levels * d, d)
        # Embeddings are small; unit scale keeps them audible beside the first layer's output.
        self.encoder_input_norm = nn.LayerNorm(d)
        self.decoder_input_norm = nn.LayerNorm(d)
        self.encoder_norm = nn.LayerNorm(d)
        self.decoder_norm = nn.LayerNorm(d)
        n_columns = config.n_signals * config.codebook_size
        self.head_bias = nn.Parameter(torch.zeros(config.levels, n_columns))
        self.head_weight = None
        if not config.tie_codes:
            self.head_weight = nn.Parameter(torch.empty(config.levels, n_columns, d))
            nn.init.normal_(self.head_weight, 0.0, std)
        # W and r of the item head, see item_keys() and repeat_logits().
        self.content: nn.Linear | None = None
        if config.item_head:
            self.content = nn.Linear(config.feature_dim or config.vector_dim, d, bias=False)
        self.repeat: nn.Parameter | None = None
        if config.repeat_logit:
            self.repeat = nn.Parameter(torch.zeros(config.max_history))
        self.dropout = Dropout(config.dropout)
        for parameter in (self.encoder_level, self.decoder_level):
            nn.init.normal_(parameter, 0.0, std)
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, 0.0, std)
            elif isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # Features have a mean square of one, vectors unit length: either comes out as large as
        # the embeddings beside it.
        scale = max(1, config.feature_dim) ** -0.5
        for content in (self.content, self.features):
            if content is not None:
                nn.init.normal_(content.weight, 0.0, std * scale)

    def train(self, mode: bool = True) -> Generator:
        """Set training or evaluation mode; training forgets the weights kept for inference."""
        if mode:
            self.plan = None
        return super().train(mode)

    def _apply(self, *args: Any, **kwargs: Any) -> Generator:
        """What every move to a device or dtype goes through."""
        self.plan = None
        return super()._apply(*args, **kwargs)

    def encode(self, catalogue: Catalogue, items: Tensor) -> Memory:
        """Encode histories ``items`` int64 [B, T], right padded with 0.

        Raises ValueError for T above ``max_history``, an empty history, and padding that is not
        on the right.
        """
        valid = check_histories(items, self.config.max_history)
        cells = Packing(valid)
        packed = cells.pack(items)  # [n]
        table = self.tokens.project()
        x = self.tokens(table, catalogue.codes[packed])  # [n, L, d]
        if self.config.history_tokens == "item":
            x = x.sum(1, keepdim=True)
        own = self.item_inputs(catalogue, packed)
        if own is not None:
            x = x + own.unsqueeze(1)
        # After the norm, as it did a SASRec good (docs/findings.md).
        position = cells.pack(self.position.weight[: items.shape[1]].expand(*items.shape, -1))
        x = self.encoder_input_norm(x + self.encoder_level) + position.unsqueeze(1)
        x = self.dropout(x)
        causal = self.config.history_encoding == "causal"
        bias = history_bias(valid, self.config.history_levels, causal, x.dtype)
        buckets = self._buckets(catalogue, items)
        for layer in self.encoder:
            x = layer(x, cells, bias, buckets)
        return Memory(self.encoder_norm(x), cells, items, valid.sum(1), table)

    def loss(
        self, catalogue: Catalogue, items: Tensor, targets: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Minus log-probability of an item, averaged over the targets.

        ``items``, ``targets``: int64 [B, T]; ``targets[b, t]`` is the item to predict after
        ``items[b, :t+1]``, 0 for none. Bidirectional encoding admits one target a row, at its
        last item. Returns the scalar loss and its detached terms, ``level_1`` .. ``level_L``.

        Raises ValueError as :meth:`encode` does, and for targets in places not allowed.
        """
        wanted = targets != 0  # [B, T]
        check_targets(items, wanted, self.config.history_encoding)
        memory = self.encode(catalogue, items)
        position, filled = slots_of(wanted)  # [B, S]
        slots = Packing(filled)
        target_items = targets[wanted]  # [n], in the order of the packed slots
        codes = catalogue.codes[target_items]  # [n, L, M]
        keys_values = self.memory_keys_values(memory)
        if self.config.generation_loss == "code":
            hidden = self.decode(memory, keys_values, codes[:, :-1], slots, position)
            logits = [self.logits(memory, hidden[:, j], j) for j in range(self.config.levels)]
            return code_loss(logits, codes, self.config.label_smoothing)
        paths = choices(catalogue.trie, target_items)
        levels = slice(int(paths.depth.max()) - 1)
        rows = self._decode_rows(
            memory, keys_values, codes[:, levels], slots, position, paths.depth
        )  # [R, d]
        scores = None
        if self.config.item_head:
            scores = self._item_scores(catalogue, memory, wanted)
            rows = self.dropout(rows)
        logits = [self.logits(memory, row, j) for j, row in enumerate(paths.rows(rows))]
        return item_loss(logits, catalogue.trie, codes, paths, scores)

    def decode(
        self,
        memory: Memory,
        keys_values: list[KeysValues],
        prefix: Tensor,
        slots: Packing,
        last: Tensor,
    ) -> Tensor:
        """Teacher-forced hidden states for the n packed slots of a [B, S] grid.

        ``prefix`` int64 [n, l - 1, M]: the codes of the levels so far; ``last`` int64 [B, S]: the
        position of the last item each slot attends to (S may be 1 for all alike). Returns
        [n, l, d]; row j predicts level j.
        """
        n_levels = prefix.shape[1] + 1
        depth = torch.full((len(prefix),), n_levels, device=prefix.device)
        rows = self._decode_rows(memory, keys_values, prefix, slots, last, depth)
        return rows.unflatten(0, (-1, n_levels))

    def _decode_rows(
        self,
        memory: Memory,
        keys_values: list[KeysValues],
        prefix: Tensor,
        slots: Packing,
        last: Tensor,
        depth: Tensor,
    ) -> Tensor:
        """:meth:`decode` for the first ``depth`` int64 [n] levels of each slot only.

        No level sees a later one, so the others need not be computed. Returns [R, d], slot by
        slot; R is the sum of ``depth``, whose largest value is l.
        """
        n_levels, n_tokens = prefix.shape[1] + 1, self.config.history_levels
        start = torch.zeros(len(prefix), 1, self.config.hidden_size, device=prefix.device)
        x = start.to(self.decoder_level.dtype)
        if n_levels > 1:
            x = torch.cat([x, self.tokens(memory.table, prefix)], dim=1)  # [n, l, d]
        x = x + self.decoder_level[:n_levels]
        history = self.history_start(memory, last)  # [B, S, d]
        if history is not None:
            x = x + slots.pack(history.expand(*slots.shape, -1)).unsqueeze(1)
        steps = Steps(slots, depth, n_levels)
        x = self.dropout(self.decoder_input_norm(steps.grid.pack(x)))  # [R, d]
        if last.shape[1] > 1:
            last = steps.cells.unpack(slots.pack(last).repeat_interleave(depth))  # [B, W]
        item = torch.arange(memory.cells.shape[1], device=last.device)
        visible = (item <= last[..., None]).repeat_interleave(n_tokens, dim=2)
        bias = blocking_bias(visible, x.dtype).unsqueeze(1)  # [B, 1, W or 1, T * L]
        for layer, pair in zip(self.decoder_layers, keys_values):
            x = layer(x, steps, pair, bias)
        normed: Tensor = self.decoder_norm(x)
        return normed

    def history_start(self, memory: Memory, last: Tensor) -> Tensor | None:
        """What the decoder's inputs take from the item at ``last`` int64 [B, S]: [B, S, d]."""
        if self.start is None:
            return None
        grid = memory.cells.unpack(self.start(memory.states.flatten(1)))  # [B, T, d]
        return grid.gather(1, last.unsqueeze(-1).expand(-1, -1, grid.shape[-1]))

    def memory_keys_values(self, memory: Memory) -> list[KeysValues]:
        """Cross-attention keys and values of every decoder layer, each [B, H, T * L, C]."""
        return [
            layer.memory_keys_values(memory.states, memory.cells) for layer in self.decoder_layers
        ]

    @property
    def decoder_layers(self) -> list[DecoderLayer]:
        return cast("list[DecoderLayer]", list(self.decoder))

    def logits(self, memory: Memory, hidden: Tensor, level: int) -> Tensor:
        """Logits over codes at ``level``: ``hidden`` [..., d] -> [..., M * N], float32 or wider.

        The code c of signal m is column m * N + c.
        """
        weight = self.code_weight(memory.table, level)
        logits = nn.functional.linear(hidden, weight.to(hidden.dtype), self.head_bias[level])
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def code_weight(self, table: Tensor, level: int) -> Tensor:
        """Output weights of a level's codes: [M * N, d]; ``table`` as in :class:`Memory`."""
        if self.head_weight is None:
            return self.tokens.head_weight(table, level)
        return self.head_weight[level]

    def item_keys(self, catalogue: Catalogue) -> Tensor:
        """What the item head scores items by: [I, d], in the order of the trie's ``leaf_items``.

        Raises ValueError without an item head.
        """
        if self.content is None:
            raise ValueError("the generator was built without item_head")
        keys: Tensor = self.content(catalogue.content(product_dtype(self.content.weight)))
        if self.items is None:
            return keys
        return self.items.weight.index_select(0, catalogue.trie.leaf_items) + keys

    def repeat_logits(self) -> Tensor:
        """The item head's logits of items that are in a history, the last one first: [T]."""
        if self.repeat is None:
            return self.decoder_level.new_zeros(self.config.max_history)
        return self.repeat * _REPEAT_SCALE

    def _item_scores(self, catalogue: Catalogue, memory: Memory, wanted: Tensor) -> ItemScores:
        """The item head at the n places of ``wanted`` bool [B, T], row by row."""
        rows, last = wanted.nonzero().unbind(1)  # [n]
        states = memory.cells.unpack(memory.states[:, -1])[rows, last]  # [n, d]
        return ItemScores.of(
            catalogue.trie,
            self.item_keys(catalogue),
            self.dropout(states),
            self.repeat_logits(),
            memory.items[rows],
            last,
        )

    def item_inputs(self, catalogue: Catalogue, items: Tensor) -> Tensor | None:
        """What the encoder reads of ``items`` int64 [n] beside their codes: [n, d], or None.

        Raises ValueError when the catalogue lacks the features that the network was built for.
        """
        own = None if self.items is None else self.items(items)
        if self.features is None:
            return own
        if catalogue.features is None:
            raise ValueError("the generator reads item features; the catalogue has none")
        projected: Tensor = self.features(catalogue.features[items])
        return projected if own is None else own + projected

    def _buckets(self, catalogue: Catalogue, items: Tensor) -> Tensor | None:
        if not self.config.similarity:
            return None
        if catalogue.vectors is None:
            raise ValueError("the similarity module needs item vectors; the catalogue has none")
        return similarity_buckets(catalogue.vectors[items], self.config.similarity_buckets)
