"""Settings that the tokenizers share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from recbole_bbqrec.settings import Positive, Probability, Settings, at_least, option


@dataclass(frozen=True)
class QuantizerSettings(Settings):
    """Codebooks, and the encoders before them."""

    codebook_size: Annotated[int, at_least(2)] = option(256, "N, codes of a codebook.")
    dropout: Probability = option(0.0, "Inside the modality encoders.", name="encoder_dropout")
    feature_scaling: Literal["zscore", "l2", "none"] = option("zscore", "Of the features.")
    recon_reduction: Literal["mean", "sum"] = option("mean", "Of squared errors over dimensions.")


@dataclass(frozen=True)
class SequenceSettings(Settings):
    """An encoder of histories that takes part in phase one."""

    sequence_layers: Positive = option(2, "Layers of the sequence encoder.")
    sequence_heads: Positive = option(2, "Its attention heads; divides sequence_hidden_size.")
    sequence_hidden_size: Positive = option(128, "Its width.")
    sequence_dropout: Probability = option(0.2, "Inside it.")
    max_history: Positive = option(
        20, "Length of a history, its last items.", name="MAX_ITEM_LIST_LENGTH"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_multiple("sequence_hidden_size", "sequence_heads")
