"""Check the options of RecBole's own models, whose values RecBole checks late or never."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.protocols import RunConfig
from recbole_bbqrec.settings import (
    Check,
    NotNegative,
    Positive,
    PositiveNumber,
    Probability,
    Weight,
    between,
    check_of,
    is_filled,
    is_number,
)

_POSITIVE = (
    "hidden_size", "inner_size", "embedding_size", "kg_embedding_size", "n_layers", "n_heads",
    "num_layers", "nv", "nh", "order_len", "high_order", "kernel_size", "block_num", "step",
    "short_item_length", "prototype_size", "interest_size", "k_interests", "pretrain_epochs",
    "save_step", "topk_factor", "n_facet_all", "n_facet", "n_facet_hidden",
)  # fmt: skip
_PROBABILITIES = (
    "hidden_dropout_prob", "attn_dropout_prob", "dropout_prob", "sess_dropout", "item_dropout",
)  # fmt: skip
_POOLING = Literal["max", "average"]


def _choice(words: Sequence[str | None]) -> Check:
    known = " or ".join("nothing" if word is None else word or "''" for word in words)
    return Check(known, "str", lambda value: value in words)


def _are_falling(words: Sequence[str]) -> bool:
    if not all(word.strip().isdigit() and int(word) > 0 for word in words):
        return False
    numbers = [int(word) for word in words]
    return numbers == sorted(numbers, reverse=True)


#: Option of one or more of RecBole's models -> what it may hold.
CHECKS: dict[str, Check] = {
    **{name: check_of(Positive) for name in _POSITIVE},
    **{name: check_of(Probability) for name in _PROBABILITIES},
    "hidden_act": check_of(Literal["gelu", "relu", "swish", "tanh", "sigmoid"]),
    "loss_type": check_of(Literal["BPR", "CE"]),
    "layer_norm_eps": check_of(PositiveNumber),
    "initializer_range": check_of(PositiveNumber),
    "temperature": check_of(PositiveNumber),
    "mask_ratio": check_of(Annotated[float, between(0, 1, open_below=True)]),
    "weight": check_of(Annotated[float, between(0, 1)]),  # of GCSAN
    "ft_ratio": check_of(Annotated[float, between(0, 1)]),
    "n_facet_context": check_of(NotNegative),
    "n_facet_reranker": check_of(NotNegative),
    "pooling_mode": check_of(Literal["mean", "max", "sum"]),
    "pooling_type": check_of(_POOLING),
    "pooling_type_layer_1": check_of(_POOLING),
    "pooling_type_layer_2": check_of(_POOLING),
    "dnn_type": check_of(Literal["trm", "ave"]),
    "gru_type": check_of(Literal["GRU", "AIGRU", "AGRU", "AUGRU"]),
    "weight_mode": _choice(("dynamic", "static", "max_logits", "")),
    "reranker_CAN_NUM": Check(
        "a whole number, or several in falling order as one text such as '500,100'", "str",
        lambda value: _are_falling(str(value).split(",")),
    ),
    # of FEARec, whose file of RecBole's lacks them
    "contrast": _choice(("us", "un", "su", "us_x", None)),
    "tau": check_of(PositiveNumber),
    "sim": check_of(Literal["dot", "cos"]),
    "use_filter": Check("False: RecBole 1.2.1 has no weights for the filter", "bool",
                        lambda value: not value),
    "lmd": check_of(Weight),
    "lmd_sem": check_of(Weight),
    "tau_ratio": check_of(PositiveNumber),
    "reg_loss_ratio": check_of(Weight),
    "global_ratio": check_of(Annotated[float, between(0, 1, open_below=True)]),
    "spatial_ratio": check_of(Annotated[float, between(0, 1)]),
}  # fmt: skip

#: Models with other losses than BPR and CE -> theirs.
_LOSSES = {
    "FPMC": ("BPR",), "CORE": ("CE",), "GRU4RecCPR": ("CE",), "SASRecCPR": ("CE",),
    "SINE": ("BPR", "CE", "NLL"),
}  # fmt: skip
#: Models whose code needs a larger value than others' -> option and its lowest value.
_AT_LEAST = {"FEARec": ("n_layers", 2), "Caser": ("embedding_size", 2)}
_WHOLE_PARTS = {"n_heads": ("hidden_size", "embedding_size")}  # the first that the model has


def check_recbole_model(model: str, listed: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Check the options that one of RecBole's models reads.

    Args:
        model: its name.
        listed: the options that it reads, with their defaults.
        values: the values of this run.

    Raises:
        UserError: a value out of range or of another type than the default, or sizes that do not
            go together.
    """
    for name, default in listed.items():
        value = values.get(name)
        check = CHECKS.get(name) or _like(default)
        if name == "dropout_probs":  # NARM reads two
            check = Check(
                "two probabilities, each a number in [0, 1)", "list",
                lambda v: is_filled(v, check_of(Probability).accepts) and len(v) == 2,
            )  # fmt: skip
        if name == "loss_type" and model in _LOSSES:
            check = _choice(_LOSSES[model])
        if check is not None and not check.accepts(value):
            raise UserError(f"Option `{name}` is {value!r}; expected {check.expected}.")
    name, lowest = _AT_LEAST.get(model, ("", 0))
    if name and values[name] < lowest:
        raise UserError(
            f"Option `{name}` is {values[name]}; expected at least {lowest}, for {model}."
        )
    made = values.get("transform")
    if made is not None and made != listed.get("transform"):
        raise UserError(
            f"Option `transform` is {made!r}, which adds columns that {model} does not read; "
            f"expected {listed.get('transform') or 'nothing'}. Leave it out."
        )
    for name, wholes in _WHOLE_PARTS.items():
        whole = next((w for w in wholes if w in listed), None)
        if name in listed and whole is not None and values[whole] % values[name]:
            raise UserError(
                f"Option `{whole}` is {values[whole]}; expected a multiple of `{name}`, which is "
                f"{values[name]}."
            )


@contextmanager
def refusing_options(config: RunConfig) -> Iterator[None]:
    """Turn an assertion of RecBole's in the block, which builds a model, into an error of ours."""
    try:
        yield
    except AssertionError as error:
        reason = str(error).rstrip(".") or "an assertion in its code does not hold"
        raise UserError(
            f"{config['model']} refuses its options: {reason}. Correct them."
        ) from error


def _like(default: Any) -> Check | None:
    """Return the check of the type that ``default`` has; None if that says nothing."""
    if isinstance(default, bool):
        return check_of(bool)
    if isinstance(default, (int, float)):  # RecBole writes 0 and 1 for fractions and switches, too
        return Check("a number", "float", lambda v: is_number(v) or isinstance(v, bool))
    if isinstance(default, str) and default not in ("", "None"):
        return Check("a text", "str", lambda v: isinstance(v, str))
    if isinstance(default, list) and default:
        if all(check_of(Positive).accepts(part) for part in default):
            return Check("a list of whole numbers, each at least 1", "list of int >= 1",
                         lambda v: is_filled(v, check_of(Positive).accepts))  # fmt: skip
        of_numbers = is_number(default[0])
        return Check(
            f"a list of {'numbers' if of_numbers else 'texts'}",
            "list",
            lambda v: is_filled(v, is_number if of_numbers else lambda part: isinstance(part, str)),
        )
    return None
