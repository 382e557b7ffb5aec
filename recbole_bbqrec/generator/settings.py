"""Settings of the phase-two network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from recbole_bbqrec.settings import (
    NotNegative,
    Positive,
    PositiveNumber,
    Probability,
    Settings,
    at_least,
    option,
)


@dataclass(frozen=True)
class GeneratorSettings(Settings):
    """Shape and options of a :class:`~recbole_bbqrec.generator.network.seq2seq.Generator`.

    The defaults are those of ``properties/model/BBQRec.yaml``. Fields without :func:`option` come
    from the data and the tokenizer:

    * ``n_signals``: codes of a token.
    * ``n_items``: items, [PAD] included; used with ``item_embedding``.
    * ``vector_dim``: width V of the frozen item vectors; for ``similarity`` and ``item_head``.
    * ``feature_dim``: width F of the items' features, which the encoder reads beside their codes
      and the item head instead of their vectors; 0: none.
    * ``similarity``: whether self-attention has the similarity module.
    """

    n_signals: Positive
    n_items: NotNegative = 0
    vector_dim: NotNegative = 0
    feature_dim: NotNegative = 0
    similarity: bool = True
    levels: Positive = option(3, "L, code levels of an item.", name="codebook_levels")
    codebook_size: Annotated[int, at_least(2)] = option(256, "N, codes of a codebook.")
    code_dim: Positive = option(128, "D, width of a code embedding.", name="codebook_dim")
    max_history: Positive = option(
        20, "Length of a history, its last items.", name="MAX_ITEM_LIST_LENGTH"
    )
    hidden_size: Positive = option(128, "Model dimension.")
    n_heads: Positive = option(4, "Attention heads; divides hidden_size.")
    encoder_layers: Positive = option(2, "Transformer layers of the encoder.")
    decoder_layers: Positive = option(1, "Transformer layers of the decoder.")
    inner_size: Positive = option(512, "Feed-forward width.")
    dropout: Probability = option(0.3, "After embeddings and sub-layers.")
    similarity_buckets: Positive = option(100, "K, Eq. 15.")
    similarity_init: Literal["identity", "uniform"] = option(
        "identity", "The gate starts at 1 + N(0, 0.01), or at U(0, 0.01), the literal text."
    )
    token_fusion: Literal["concat", "sum"] = option("concat", "Of a token's code embeddings.")
    history_encoding: Literal["bidirectional", "causal"] = option(
        "causal", "causal: one pass trains all prefixes of a user."
    )
    history_positions: Literal["auto", "first", "last"] = option(
        "auto",
        "Counted from the history's first or its last item; auto: last if bidirectional, first if "
        "causal.",
    )
    norm_positions: bool = option(False, "Add positions before the input norm, not after it.")
    history_tokens: Literal["item", "level"] = option(
        "item",
        "item: an item is one token of the encoder, the sum of its levels'; level: L tokens.",
    )
    generation_loss: Literal["code", "item"] = option(
        "item", "item: likelihood over the items that exist; code: cross-entropy over codes."
    )
    decoder_start: Literal["history", "token"] = option(
        "history",
        "history: the last item's states enter the decoder's inputs; token: only cross-attention.",
    )
    label_smoothing: Probability = option(0.0, "Of the code loss.")
    item_embedding: bool = option(True, "Add a learned item embedding to the encoder's tokens.")
    item_head: bool = option(
        True,
        "Score whole items by the encoder's last state, and tokens by the items below them; needs "
        "the item loss.",
    )
    repeat_logit: bool = option(
        True,
        "With the item head: a learned logit for the items of the history, by how long ago.",
    )
    item_head_sampling: Literal["auto", "full", "sampled"] = option(
        "auto",
        "Sampled softmax of the item head in training, corrected by log q; auto: from 200,000 "
        "items on.",
    )
    item_head_samples: Positive = option(8192, "Items drawn a step for it, beside the batch's own.")
    item_head_ranking: Literal["exact", "shortlist"] = option(
        "exact",
        "exact: all items are scored for a user; shortlist: those below the first-level nodes that "
        "look best.",
    )
    tie_codes: bool = option(False, "Tie output heads to the code embeddings.")
    initializer_range: PositiveNumber = option(
        0.02, "Standard deviation of the initial embeddings of codes, items, levels and positions."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_multiple("hidden_size", "n_heads")
        if self.label_smoothing and self.generation_loss == "item":
            self._refuse("label_smoothing", "0 with `generation_loss` item")
        if self.history_positions == "last" and self.history_encoding == "causal":
            self._refuse(
                "history_positions",
                "auto or first with `history_encoding` 'causal': one pass trains all prefixes of a "
                "user, and each of them ends elsewhere",
            )
        if self.similarity and self.vector_dim == 0:
            self._refuse("vector_dim", "at least 1 with similarity")
        if self.item_head:
            if self.generation_loss != "item":
                self._refuse(
                    "item_head",
                    f"False with `generation_loss` {self.generation_loss!r}: it needs `item`, "
                    "which normalises over the tokens that exist. Add --item_head=False, or leave "
                    "`generation_loss` as it is",
                )
            if self.vector_dim == self.feature_dim == 0:
                self._refuse("vector_dim", "at least 1 with item_head, or feature_dim")
        if self.repeat_logit and not self.item_head:
            self._refuse("repeat_logit", "False without `item_head`")
        if self.item_head_sampling == "sampled" and not self.item_head:
            self._refuse("item_head_sampling", "auto or full without `item_head`")
        if self.item_embedding and self.n_items < 2:
            self._refuse("n_items", "at least 2 with item_embedding")

    @property
    def from_last(self) -> bool:
        """True if positions count from the last item of a history."""
        if self.history_positions == "auto":
            return self.history_encoding == "bidirectional"
        return self.history_positions == "last"

    @property
    def history_levels(self) -> int:
        """Tokens that the encoder reads of an item."""
        return 1 if self.history_tokens == "item" else self.levels
