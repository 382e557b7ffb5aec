"""Give RecBole's models that train on sampled negatives a default.

`overall.yaml` samples none: a softmax over all items needs none, and RecBole refuses them there.
A model that needs them would end in a KeyError at its first batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recbole.utils import InputType

from recbole_bbqrec.data.loaded_columns import header_columns, is_loaded
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.model.registry import get_model, is_ours

KEY = "train_neg_sample_args"

#: One negative per positive, RecBole's own default.
UNIFORM: dict[str, Any] = {
    "distribution": "uniform",
    "sample_num": 1,
    "alpha": 1.0,
    "dynamic": False,
    "candidate_num": 0,
}

#: Models trained on labels, 1 or 0. RepeatNet is POINTWISE as well, but has a softmax.
_ON_LABELS = {"DIN", "DIEN"}

#: Models that draw negatives for their masked items themselves.
_DRAWS_ITS_OWN = {"BERT4Rec"}


def needs_negatives(model: str, loss_type: str | None) -> bool:
    """Return True if ``model`` trains on negatives; ``loss_type`` is None if it reads none."""
    if is_ours(model) or model in _DRAWS_ITS_OWN:
        return False
    kind = getattr(get_model(model), "input_type", None)
    if kind == InputType.PAIRWISE:
        return loss_type in (None, "BPR")  # SINE is PAIRWISE, with a softmax by default
    return model in _ON_LABELS or (kind is None and loss_type == "BPR")


def with_negatives(
    model: str,
    dataset: str,
    options: Mapping[str, Any],
    listed: Mapping[str, Any],
    is_given: bool,
) -> Any:
    """Return ``train_neg_sample_args`` for a run of ``model``.

    Args:
        model: name of the model.
        dataset: name of the data set, which may have labels of its own.
        options: values of all options.
        listed: defaults of the options that the model reads.
        is_given: True if the user gave the option; a value other than none always wins.

    Raises:
        UserError: the user asked for no negatives, and the model needs them.
    """
    given = options.get(KEY)
    loss_type = options.get("loss_type") if "loss_type" in listed else None
    if not _is_none(given) or not needs_negatives(model, loss_type):
        return given
    if model in _ON_LABELS and _has_labels(dataset, options):
        return given  # sampled negatives would overwrite them
    if not is_given:
        return dict(UNIFORM)
    why = f" with `loss_type` {loss_type}" if loss_type else ""
    raise UserError(
        f"Option `{KEY}` is {given!r}; expected how to sample negatives: {model}{why} trains on "
        "them. Leave it out for one uniform negative per positive, or give for example "
        f"--{KEY}=\"{{'distribution':'uniform','sample_num':1}}\"."
    )


def _is_none(value: Any) -> bool:
    """Return True if RecBole samples nothing with this value."""
    if isinstance(value, Mapping):
        value = value.get("distribution", "uniform")
    return value is None or value in ("None", "none")


def _has_labels(dataset: str, options: Mapping[str, Any]) -> bool:
    """Return True if the interactions have labels, read or made from another column."""
    if options.get("threshold"):
        return True
    field, load_col = options.get("LABEL_FIELD"), options.get("load_col")
    if field is None or not is_loaded(field, "inter", load_col, options.get("unload_col")):
        return False
    if isinstance(load_col, Mapping) and load_col["inter"] != "*":
        return True  # `load_col` names the column
    separator, encoding = options.get("field_separator", "\t"), options.get("encoding")
    files = sorted((Path(options["data_path"]) / dataset).glob(f"{dataset}*.inter"))
    return any(field in (header_columns(path, separator, encoding) or {}) for path in files)
