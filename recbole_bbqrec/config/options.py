"""Every option of ours: its type, its allowed values, and the check that runs before work starts.

RecBole reads a missing or misspelt key as ``None`` and goes on. Here an unknown key is an error
that names the nearest known one, so is one that the model does not read, and a value out of range
is an error that names the range.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Callable, Union

from recbole_bbqrec.config.checks.intervals import are_intervals
from recbole_bbqrec.errors import UserError, did_you_mean

Number = Union[int, float]


@dataclass(frozen=True)
class Option:
    """What one option accepts: ``expected`` is the text shown when ``accepts`` says no."""

    expected: str
    accepts: Callable[[Any], bool]


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value


def integer(low: int, high: int | None = None) -> Option:
    bounds = f"of at least {low}" + ("" if high is None else f" and at most {high}")
    return Option(
        f"an integer {bounds}", lambda v: _is_int(v) and v >= low and (high is None or v <= high)
    )


def number(low: Number, high: Number = float("inf"), *, above: bool = False) -> Option:
    """A number in [low, high], or in (low, high] with ``above``."""
    bounds = f"{'above' if above else 'of at least'} {low}"
    if high != float("inf"):
        bounds += f" and at most {high}"
    return Option(
        f"a number {bounds}",
        lambda v: _is_number(v) and (v > low if above else v >= low) and v <= high,
    )


def probability() -> Option:
    return Option("a number in [0, 1)", lambda v: _is_number(v) and 0 <= v < 1)


def choice(*values: str) -> Option:
    return Option("one of " + ", ".join(values), lambda v: v in values)


def boolean() -> Option:
    return Option("True or False", lambda v: isinstance(v, bool))


def optional(option: Option) -> Option:
    return Option(f"{option.expected}, or nothing", lambda v: v is None or option.accepts(v))


def text() -> Option:
    return Option("a text", lambda v: isinstance(v, str) and v != "")


def list_of(option: Option, what: str) -> Option:
    return Option(
        f"a list of {what}",
        lambda v: isinstance(v, (list, tuple)) and all(option.accepts(x) for x in v),
    )


def _is_weight_table(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(k, str) and _is_number(v) and v >= 0 for k, v in value.items()
    )


def _is_names(value: Any) -> bool:
    names = [value] if isinstance(value, str) else value
    return _is_filled(names) and all(isinstance(name, str) for name in names)


def _is_cutoffs(value: Any) -> bool:
    return _is_filled(value) and all(_is_int(k) and k >= 1 for k in value)


def _is_filled(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) > 0


#: How many interactions a user or item must have to be kept.
_INTERVALS = Option(
    "intervals such as [5,inf) or (4,20];[50,inf), each end in it or not by its bracket",
    are_intervals,
)

#: Options of every run, RecBole's own models included.
RUN_OPTIONS: dict[str, Option] = {
    "mask_history": boolean(),
    "resume": optional(text()),
    "tune_allocator": boolean(),
    "num_threads": optional(integer(1)),
    "prepare": boolean(),
}

#: RecBole's options whose values RecBole itself does not check.
RECBOLE_OPTIONS: dict[str, Option] = {
    "epochs": integer(1),
    "train_batch_size": integer(1),
    "eval_batch_size": integer(1),
    "eval_step": integer(0),
    "stopping_step": integer(0),
    "learning_rate": number(0, above=True),
    "weight_decay": number(0),
    "MAX_ITEM_LIST_LENGTH": integer(1),
    "user_inter_num_interval": optional(_INTERVALS),
    "item_inter_num_interval": optional(_INTERVALS),
    "seed": integer(0, 2**32 - 1),  # as NumPy takes it
    "metrics": Option("a name or a list of at least one name", _is_names),
    "topk": Option("a list of at least one integer of at least 1", _is_cutoffs),
    "valid_metric": text(),
}

#: Options of phase one, of phase two, and of decoding.
MODEL_OPTIONS: dict[str, Option] = {
    "modalities": optional(list_of(text(), "modality names")),
    "precision": choice("auto", "float32", "bfloat16"),
    # phase one
    "tokenizer_path": optional(text()),
    "tokenize_only": boolean(),
    "tokenizer_epochs": integer(1),
    "tokenizer_learning_rate": number(0, above=True),
    "tokenizer_batch_size": integer(1),
    "tokenizer_weight_decay": number(0),
    "tokenizer_warmup_epochs": integer(0),
    "tokenizer_stopping_step": integer(0),
    "tokenizer_max_collisions": number(0, 1),
    "tokenizer_valid_users": integer(0),
    "codebook_levels": integer(1),
    "codebook_size": integer(2),
    "codebook_dim": integer(1),
    "commitment_weight": Option(
        "a number of at least 0, or a table signal: number",
        lambda v: (_is_number(v) and v >= 0) or _is_weight_table(v),
    ),
    "contrastive_weight": number(0),
    "mim_weight": number(0),
    "mim_inner_steps": integer(1),
    "mim_learning_rate": number(0, above=True),
    "temperature": number(0, above=True),
    "encoder_hidden": list_of(integer(1), "integers of at least 1"),
    "encoder_dropout": probability(),
    "feature_scaling": choice("zscore", "l2", "none"),
    "recon_reduction": choice("mean", "sum"),
    "sequence_encoder": choice("sasrec", "srgnn"),
    "sequence_layers": integer(1),
    "sequence_heads": integer(1),
    "sequence_hidden_size": integer(1),
    "sequence_dropout": probability(),
    "tokenizer_modality": text(),
    "disambiguation": choice("token", "reassign"),
    "reconstruction_weight": number(0),
    "alignment_weight": number(0),
    "diversity_weight": number(0),
    "diversity_clusters": integer(1),
    "cf_epochs": integer(1),
    "cf_embedding_path": optional(text()),
    # phase two
    "hidden_size": integer(1),
    "n_heads": integer(1),
    "encoder_layers": integer(1),
    "decoder_layers": integer(1),
    "inner_size": integer(1),
    "dropout": probability(),
    "similarity_buckets": integer(1),
    "similarity_init": choice("identity", "uniform"),
    "token_fusion": choice("concat", "sum"),
    "history_encoding": choice("bidirectional", "causal"),
    "history_tokens": choice("item", "level"),
    "generation_loss": choice("code", "item"),
    "decoder_start": choice("history", "token"),
    "label_smoothing": probability(),
    "item_embedding": boolean(),
    "item_head": boolean(),
    "repeat_logit": boolean(),
    "cooccurrence_weight": number(0),
    "feature_similarity_weight": number(0),
    "neighbour_decay": number(0, 1),
    "item_features": boolean(),
    "feature_components": integer(1),
    "feature_whitening": boolean(),
    "tie_codes": boolean(),
    "generation_temperature": number(0, above=True),
    "warmup_ratio": number(0, 1),
    "lr_schedule": choice("constant", "cosine"),
    # decoding
    "num_beams": integer(1),
    # single-phase models: RecBole's names, then ours
    "loss_type": choice("CE"),
    "n_layers": integer(1),
    "num_layers": integer(1),
    "embedding_size": integer(1),
    "dropout_prob": probability(),
    "hidden_dropout_prob": probability(),
    "attn_dropout_prob": probability(),
    "hidden_act": choice("gelu", "relu", "swish", "tanh", "sigmoid"),
    "layer_norm_eps": number(0, above=True),
    "initializer_range": number(0, above=True),
    "mask_ratio": number(0, 1, above=True),
    "ft_ratio": number(0, 1),
    "train_target": boolean(),
    "feature_size": integer(1),
    "nova_fusion": choice("add", "concat", "gate"),
    "code_digits": integer(1),
    "code_components": integer(0),
    "opq_iterations": integer(0),
    "n_negatives": integer(0),
    "logq_correction": boolean(),
    "interest_ratio": number(0, 1, above=True),
    "interest_neighbours": integer(1),
    "interest_update_epochs": integer(1),
    "orthogonality_weight": number(0),
}


def check_known(keys: Iterable[str], known: Iterable[str], where: str) -> None:
    """Raise a UserError for the first of ``keys`` that is not in ``known``."""
    names = sorted(known)
    for key in keys:
        if key in names:
            continue
        hint = did_you_mean(key, names)
        raise UserError(f"Unknown option `{key}` {where}.{hint} Correct or remove it.")


#: Options among :data:`MODEL_OPTIONS` that every run accepts: the modalities are the data set's as
#: much as the model's, and a model without a phase one has its own words for `tokenize_only`.
OF_EVERY_RUN = frozenset({"modalities", "tokenize_only"})

#: Two options for one thing; a model has the one or the other, by whose loop trains it.
_INSTEAD = {"enable_amp": "precision", "precision": "enable_amp"}


def asks_nothing(key: str, value: Any) -> bool:
    """RecBole's default of `enable_amp`, which any resolved configuration holds, is no request."""
    return key == "enable_amp" and not value


def check_read(
    values: Mapping[str, Any], read: Collection[str], model: str, listed_in: str
) -> None:
    """Raise a UserError for the first key of ``values`` that ``model`` would not read.

    Args:
        values: the options given.
        read: what the model reads.
        model: its name.
        listed_in: where a reader finds its options.
    """
    for key, value in values.items():
        if key in read or asks_nothing(key, value):
            continue
        elsewhere = key in MODEL_OPTIONS or key in _INSTEAD
        if _INSTEAD.get(key) in read:
            hint = f" Did you mean `{_INSTEAD[key]}`?"
        else:
            hint = did_you_mean(key, sorted(read), n=3 if elsewhere else 1)
        what = f"Option `{key}` is not read by" if elsewhere else f"Unknown option `{key}` for"
        raise UserError(
            f"{what} model {model}.{hint} Correct or remove it; the options of {model} are in "
            f"{listed_in}."
        )


def check_values(values: Mapping[str, Any], options: Mapping[str, Option]) -> None:
    """Raise a UserError for the first present value that its option does not accept."""
    for key, option in options.items():
        if key in values and not option.accepts(values[key]):
            raise UserError(f"Option `{key}` is {values[key]!r}; expected {option.expected}.")
