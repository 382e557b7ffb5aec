"""Settings of training, ranking, features and neighbours.

Those of the generative networks are in :mod:`recbole_bbqrec.generator.settings` and
:mod:`recbole_bbqrec.tokenizer`, those of the models of one phase in
:mod:`recbole_bbqrec.model.baseline_settings`. Defaults are the values of the model's YAML file, and
of BBQRec.yaml where a class serves several models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, Optional

from recbole_bbqrec.settings import (
    NotNegative,
    OptionalText,
    Positive,
    PositiveNumber,
    Settings,
    Weight,
    between,
    option,
)

Share = Annotated[float, between(0, 1)]
PositiveShare = Annotated[float, between(0, 1, open_below=True)]
_MOST_RINGS = 5  # with more, most items are in a ring
Scaling = Literal["zscore", "l2", "none"]
OptionalNames = Optional[Annotated[tuple[str, ...], "modality names"]]

# training ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainingSettings(Settings):
    """Training of every model, RecBole's too; a model's YAML file has values of its own."""

    epochs: Positive = option(20, "Upper bound; early stopping may end before.")
    train_batch_size: Positive = option(512, "Targets (history, next item) a step.")
    learning_rate: PositiveNumber = option(0.001, "Of the optimizer; the peak of a schedule.")
    weight_decay: Weight = option(0.05, "On matrices only.")
    eval_step: NotNegative = option(4, "Epochs between validations.")
    stopping_step: NotNegative = option(3, "Validations without improvement before stopping.")
    eval_batch_size: Positive = option(2048, "Users an evaluation batch.")


@dataclass(frozen=True)
class PrecisionSettings(Settings):
    """Numbers of the networks that this package trains itself."""

    precision: Literal["auto", "float32", "bfloat16"] = option("auto", "Autocast.")


@dataclass(frozen=True)
class PhaseTwoSettings(TrainingSettings, PrecisionSettings):
    """Training and ranking of generative models."""

    lr_schedule: Literal["constant", "cosine"] = option(
        "cosine", "cosine: linear warm-up, then a fall to zero by `epochs`."
    )
    warmup_ratio: Share = option(0.05, "Share of all steps spent on warm-up.")
    num_beams: Positive = option(
        50, "Beam width; at least max(topk), plus MAX_ITEM_LIST_LENGTH with mask_history."
    )


@dataclass(frozen=True)
class HistoryTrainingSettings(TrainingSettings, PrecisionSettings):
    """Training of the single-phase models that train on whole histories; ESASRec.yaml."""

    weight_decay: Weight = 0.0
    eval_step: NotNegative = 2
    stopping_step: NotNegative = 5
    eval_batch_size: Positive = 4096
    lr_schedule: Literal["constant", "cosine"] = option(
        "cosine", "cosine: linear warm-up, then a fall to zero by `epochs`."
    )
    warmup_ratio: Share = option(0.05, "Share of all steps spent on warm-up.")


@dataclass(frozen=True)
class PhaseOneSettings(PrecisionSettings):
    """Training of a tokenizer."""

    tokenizer_path: OptionalText = option(
        None, "Semantic IDs to reuse instead of running phase one."
    )
    tokenize_only: bool = option(False, "End after phase one: semantic IDs, no generator, no test.")
    tokenizer_epochs: Positive = option(8, "Epochs over all users and items.")
    tokenizer_batch_size: Positive = option(256, "Histories, or items, a step.")
    tokenizer_learning_rate: PositiveNumber = option(0.001, "AdamW, cosine decay to zero.")
    tokenizer_weight_decay: Weight = option(
        0.0001, "On matrices only; never on codebooks or embeddings."
    )
    tokenizer_warmup_epochs: NotNegative = option(3, "Epochs without quantization, before k-means.")
    tokenizer_stopping_step: NotNegative = option(
        15, "Validations without a better recall before stopping; more than the epochs: never."
    )
    tokenizer_max_collisions: Share = option(
        0.05, "A state with a larger share of colliding items is not kept."
    )
    tokenizer_valid_users: NotNegative = option(
        5000, "Users sampled for validation recall; 0: all."
    )
    mim_inner_steps: Positive = option(5, "Likelihood steps of q_theta a batch (Eq. 3).")
    mim_learning_rate: PositiveNumber = option(0.001, "Adam of q_theta.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokenizer_warmup_epochs >= self.tokenizer_epochs:
            self._refuse(
                "tokenizer_warmup_epochs",
                f"less than `tokenizer_epochs`, which is {self.tokenizer_epochs}: the epochs after "
                "the warm-up are those that quantize",
            )
        if self.tokenize_only and self.tokenizer_path is not None:
            self._refuse(
                "tokenize_only",
                f"False with `tokenizer_path`: the semantic IDs in {self.tokenizer_path} leave "
                "nothing to do. Remove one",
            )


# features and neighbours ------------------------------------------------------------------------


@dataclass(frozen=True)
class ModalitySettings(Settings):
    """Features that the data set loads."""

    modalities: OptionalNames = option(
        ("text", "image"), "Feature files to use; the data set's YAML narrows it."
    )


@dataclass(frozen=True)
class FeatureSettings(Settings):
    """Features of the items as phase two and the neighbours read them."""

    feature_scaling: Scaling = option("zscore", "Of the features.")
    feature_components: Positive = option(512, "Principal components kept of a wider modality.")
    feature_whitening: bool = option(True, "Make their principal components equally wide.")


@dataclass(frozen=True)
class GeneratorFeatureSettings(FeatureSettings):
    """Features of the items in BBQRec's generator."""

    item_features: bool = option(
        True, "The encoder and the item head read the items' features, too."
    )


@dataclass(frozen=True)
class NeighbourSettings(Settings):
    """Values that the items near those of the history add to a score."""

    cooccurrence_weight: Weight = option(4.0, "Of items chosen after the history's in training.")
    feature_similarity_weight: Weight = option(1.7, "Of items with features like the history's.")
    neighbour_decay: Share = option(
        0.6, "Of both, by how many items ago those of the history were chosen."
    )
    neighbour_search: Literal["auto", "exact", "approximate"] = option(
        "auto", "Of similar features; auto: approximate from 100,000 items on, with faiss."
    )


@dataclass(frozen=True)
class STARSettings(Settings):
    """The score of STAR; defaults are its paper's."""

    text_weight: Share = option(0.5, "Of similar text; shared users have the rest.")
    neighbour_decay: Share = option(0.7, "Of both, by how many items ago it was chosen.")
    recent_items: Positive = option(3, "Last items of the history that count.")


@dataclass(frozen=True)
class TGHSettings(Settings):
    """The ranking of TGH; defaults are its paper's."""

    ring_places: Annotated[tuple[Positive, ...], "numbers of items"] = option(
        (7, 2, 1), "Places of each ring at the head of the ranking, the nearest ring first."
    )
    transition_weight: Weight = option(
        0.5, "Of frequent transitions, beside the cosine of the texts; in ring 1."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= len(self.ring_places) <= _MOST_RINGS:
            self._refuse("ring_places", f"1 to {_MOST_RINGS} numbers, one for each ring")


# generative models ------------------------------------------------------------------------------


@dataclass(frozen=True)
class TIGERSettings(Settings):
    """Semantic IDs of one modality."""

    tokenizer_modality: str = option("text", "The modality that is quantized.")
    disambiguation: Literal["token", "reassign"] = option(
        "token",
        "token: the last level separates items that share the others; reassign: it is quantized, "
        "collisions move.",
    )
    codebook_levels: Positive = option(4, "L, code levels of an item.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.quantized_levels < 1:
            self._refuse(
                "codebook_levels",
                "at least 2: with `disambiguation: token` the last level is the disambiguation "
                "token",
            )

    @property
    def quantized_levels(self) -> int:
        """Levels of the residual quantizer: all but the disambiguation token, if there is one."""
        return self.codebook_levels - (self.disambiguation == "token")


@dataclass(frozen=True)
class LETTERGenerationSettings(Settings):
    """LETTER's tempered loss."""

    generation_temperature: PositiveNumber = option(
        1.0, "Of the ranking-guided loss; it divides the logits in training, never in decoding."
    )
