"""Settings of the phase-two network."""

from __future__ import annotations

from dataclasses import dataclass

_CHOICES = {
    "similarity_init": ("identity", "uniform"),
    "token_fusion": ("concat", "sum"),
    "history_encoding": ("causal", "bidirectional"),
    "history_tokens": ("level", "item"),
    "generation_loss": ("code", "item"),
    "decoder_start": ("history", "token"),
}
_POSITIVE = (
    "levels",
    "codebook_size",
    "n_signals",
    "code_dim",
    "hidden_size",
    "n_heads",
    "encoder_layers",
    "decoder_layers",
    "inner_size",
    "max_history",
    "similarity_buckets",
)


@dataclass(frozen=True)
class GeneratorSettings:
    """Shape and options of a :class:`~recbole_bbqrec.generator.network.seq2seq.Generator`.

    ``code_dim`` is the width of one learned code embedding; ``vector_dim`` the width V of the
    frozen item vectors and used with ``similarity`` and ``item_head`` only; ``n_items`` (with
    [PAD]) is used with ``item_embedding`` only. ``feature_dim`` is the width F of the items'
    features, which the encoder reads beside their codes and the item head instead of their
    vectors; 0: none. ``item_head`` adds scores of whole items to the tokens' logits, see
    :mod:`~recbole_bbqrec.generator.head.item_head`; ``repeat_logit`` gives the items of the
    history a learned logit there. ``similarity_init`` "identity" starts the gate at one (plus
    noise), "uniform" draws it from (0, 0.01) as the paper does with all embeddings.
    ``history_tokens`` "level" makes L tokens of a history's item, "item" sums them.
    ``decoder_start`` "history" adds a projection of the last visible item's encoder states to the
    decoder's inputs, which otherwise ("token") learn of the history through cross-attention alone.

    Raises ValueError, naming the field and its value, for a value out of range.
    """

    levels: int
    codebook_size: int
    n_signals: int
    vector_dim: int = 0
    code_dim: int = 128
    hidden_size: int = 128
    n_heads: int = 4
    encoder_layers: int = 2
    decoder_layers: int = 2
    inner_size: int = 512
    dropout: float = 0.1
    max_history: int = 20
    similarity: bool = True
    similarity_buckets: int = 100
    similarity_init: str = "identity"
    token_fusion: str = "concat"
    history_encoding: str = "causal"
    history_tokens: str = "level"
    decoder_start: str = "history"
    generation_loss: str = "code"
    label_smoothing: float = 0.0
    item_embedding: bool = False
    item_head: bool = False
    repeat_logit: bool = False
    n_items: int = 0
    feature_dim: int = 0
    tie_codes: bool = False
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            self._require(name, getattr(self, name) >= 1, "at least 1")
        for name, choices in _CHOICES.items():
            self._require(name, getattr(self, name) in choices, f"one of {', '.join(choices)}")
        for name in ("dropout", "label_smoothing"):
            self._require(name, 0.0 <= getattr(self, name) < 1.0, "in [0, 1)")
        self._require("initializer_range", self.initializer_range > 0, "greater than 0")
        self._require(
            "hidden_size", self.hidden_size % self.n_heads == 0, f"a multiple of {self.n_heads}"
        )
        if self.generation_loss == "item":
            self._require("label_smoothing", self.label_smoothing == 0, "0 with the item loss")
        if self.similarity:
            self._require("vector_dim", self.vector_dim >= 1, "at least 1 with similarity")
        if self.item_head:
            self._require("generation_loss", self.generation_loss == "item", "item with item_head")
            content = max(self.vector_dim, self.feature_dim)
            self._require("vector_dim", content >= 1, "at least 1 with item_head, or feature_dim")
        if self.repeat_logit:
            self._require("item_head", self.item_head, "True with repeat_logit")
        self._require("feature_dim", self.feature_dim >= 0, "at least 0")
        if self.item_embedding:
            self._require("n_items", self.n_items >= 2, "at least 2 with item_embedding")

    @property
    def history_levels(self) -> int:
        """How many tokens the encoder reads of an item."""
        return 1 if self.history_tokens == "item" else self.levels

    def _require(self, name: str, ok: bool, expected: str) -> None:
        if not ok:
            raise ValueError(
                f"GeneratorSettings.{name} is {getattr(self, name)!r}: it must be {expected}"
            )
