"""Settings of the models that have one phase: on histories, or on top of RecBole's.

Defaults are the values of the model's YAML file. Where one differs from the released code, the file
names the release's value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from recbole_bbqrec.model.settings import PositiveShare, Scaling, Share
from recbole_bbqrec.settings import (
    Check,
    NotNegative,
    Positive,
    PositiveNumber,
    Probability,
    Settings,
    Weight,
    at_least,
    is_integer,
    is_number,
    option,
)


def _is_neighbourhood(value: Any) -> bool:
    return (is_integer(value) and value >= 1) or (is_number(value) and 0 < value < 1)


# single-phase models that train on histories ----------------------------------------------------


@dataclass(frozen=True)
class EncoderSettings(Settings):
    """A transformer over histories."""

    hidden_size: Positive = option(128, "Model dimension.")
    n_heads: Positive = option(2, "Attention heads; divides hidden_size.")
    encoder_layers: Positive = option(2, "Transformer layers of the encoder.")
    inner_size: Positive = option(512, "Feed-forward width.")
    dropout: Probability = option(0.5, "After embeddings and sub-layers.")
    attention_dropout: Probability = option(0.0, "On attention weights.")
    max_history: Positive = option(
        20, "Length of a history, its last items.", name="MAX_ITEM_LIST_LENGTH"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_multiple("hidden_size", "n_heads")


@dataclass(frozen=True)
class ESASRecSettings(EncoderSettings):
    input_norm: bool = option(True, "Normalise the item embeddings that the encoder reads.")
    history_positions: Literal["first", "last"] = option(
        "first", "Counted from the history's first or its last item."
    )
    initialization: Literal["normal", "xavier"] = option(
        "normal", "N(0, 0.02), or Glorot's normal rule, of matrices and embeddings."
    )
    adam_betas: Annotated[tuple[Probability, ...], "numbers in [0, 1)"] = option(
        (0.9, 0.999), "Decay of the optimizer's two averages."
    )
    n_negatives: NotNegative = option(0, "Uniform negatives a target; 0: softmax over all items.")
    logq_correction: bool = option(False, "Correct the logits for the negatives' sampling rate.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.adam_betas) != 2:
            self._refuse("adam_betas", "two numbers")


@dataclass(frozen=True)
class CodeSettings(EncoderSettings):
    """VQRec, and what RPG shares with it."""

    inner_size: Positive = 256
    code_digits: Positive = option(32, "Digits of an item's code, at most the text's width.")
    codebook_size: Annotated[int, at_least(2)] = option(256, "Codes per digit.")
    code_components: NotNegative = option(
        0, "Whitened principal components that are quantized; 0: the text itself."
    )
    opq_iterations: NotNegative = option(20, "Rotation updates; 0 is plain product quantization.")
    code_scale: Literal["item", "code"] = option(
        "item", "What starts with deviation 0.02: an item, the mean of its codes, or each code."
    )
    norm_positions: bool = option(False, "Add positions before the input norm, not after it.")
    temperature: PositiveNumber = option(0.07, "Of the cosine soft-max.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if 0 < self.code_components < self.code_digits:
            self._refuse(
                "code_components",
                f"0 or at least `code_digits`, which is {self.code_digits}: a digit codes one "
                "component or more",
            )


@dataclass(frozen=True)
class RPGSettings(CodeSettings):
    n_heads: Positive = 4
    inner_size: Positive = 512
    dropout: Probability = 0.3
    code_components: NotNegative = 128
    temperature: PositiveNumber = 0.03


@dataclass(frozen=True)
class MISSRecSettings(EncoderSettings):
    n_heads: Positive = 4
    encoder_layers: Positive = 1
    decoder_layers: Positive = option(1, "Transformer layers of the decoder.")
    inner_size: Positive = 256
    feature_scaling: Scaling = option("zscore", "Of the features before projection.")
    interest_ratio: PositiveShare = option(0.5, "Interests per item with features.")
    interest_clustering: Literal["unit", "released"] = option(
        "unit",
        "unit: of normalised vectors; released: of the vectors themselves, distances over the root "
        "of their width, a point among its own neighbours.",
    )
    interest_neighbours: Annotated[
        float,
        Check(
            "an integer of at least 1, or a share in (0, 1)",
            "int >= 1 or float in (0, 1)",
            _is_neighbourhood,
        ),
    ] = option(5, "k of the density in DPC-kNN; below 1: a share of the points.")
    interest_update_epochs: Positive = option(1, "Epochs between clusterings.")
    inner_dropout: Probability = option(0.0, "Inside the feed-forward networks.")
    one_modality_score: Literal["mean", "sum"] = option(
        "mean",
        "With one modality: the mean of two cosines, with the ID and with the features, or the "
        "cosine with their sum.",
    )
    orthogonality_weight: Weight = option(0.0001, "Of the regulariser on a user's interests.")
    temperature: PositiveNumber = option(0.07, "Of the cosine soft-max.")


# models on top of RecBole's, which reads most of these options itself ---------------------------


@dataclass(frozen=True)
class RecBoleSettings(Settings):
    feature_scaling: Scaling = option("zscore", "Of the features before projection.")
    hidden_size: Positive = option(128, "Model dimension.")
    loss_type: Literal["CE"] = option("CE", "Softmax over all items; nothing else is supported.")


@dataclass(frozen=True)
class MMGRU4RecSettings(RecBoleSettings):
    feature_size: Positive = option(64, "Width of each projected modality.")
    embedding_size: Positive = option(128, "Item embedding.")
    num_layers: Positive = option(1, "GRU layers.")
    dropout_prob: Probability = option(0.4, "On the fused input.")


@dataclass(frozen=True)
class RecBoleTransformerSettings(RecBoleSettings):
    n_layers: Positive = option(2, "Transformer layers.")
    n_heads: Positive = option(2, "Attention heads; divides hidden_size.")
    inner_size: Positive = option(256, "Feed-forward width.")
    hidden_dropout_prob: Probability = option(0.5, "After embeddings and layers.")
    attn_dropout_prob: Probability = option(0.5, "On attention weights.")
    hidden_act: Literal["gelu", "relu", "swish", "tanh", "sigmoid"] = option(
        "gelu", "Feed-forward."
    )
    layer_norm_eps: PositiveNumber = option(1e-12, "Added to a variance.")
    initializer_range: PositiveNumber = option(0.02, "Standard deviation of the initial weights.")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_multiple("hidden_size", "n_heads")


@dataclass(frozen=True)
class MMSASRecSettings(RecBoleTransformerSettings):
    feature_size: Positive = option(64, "Width of each projected modality.")


@dataclass(frozen=True)
class NOVABERTSettings(RecBoleTransformerSettings):
    hidden_dropout_prob: Probability = 0.3
    attn_dropout_prob: Probability = 0.3
    nova_fusion: Literal["add", "concat", "gate"] = option("gate", "Of item and side information.")
    mask_ratio: PositiveShare = option(0.2, "Chance that an item is masked.")
    ft_ratio: Share = option(0.5, "Share of rows that mask the last item alone.")
    train_target: bool = option(True, "Rows include their target.")
