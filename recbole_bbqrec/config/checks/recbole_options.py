"""Check RecBole's options at every depth: keys of table options, and every value in them.

RecBole completes a table with its defaults and reads only the keys that it knows, so that a
misspelt key or a value that it cannot use would change nothing, or end in a traceback after hours.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional, Union

from recbole_bbqrec.config.checks.intervals import are_intervals
from recbole_bbqrec.errors import UserError, did_you_mean
from recbole_bbqrec.settings import (
    Check,
    NotNegative,
    Positive,
    PositiveNumber,
    check_of,
    is_filled,
    is_integer,
    is_number,
)

LEARNERS = ("adam", "adamw", "sgd", "adagrad", "rmsprop", "sparse_adam")
_STATES = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_TRANSFORMS = ("mask_itemseq", "inverse_itemseq", "crop_itemseq", "reorder_itemseq",
               "user_defined")  # fmt: skip


@dataclass(frozen=True)
class Table:
    """A table option.

    Attributes:
        keys: its keys and what each may hold; None: any name, of a column or a file.
        values: what every key may hold if ``keys`` is None.
        plain: what may stand in place of the table.
        single: exactly one key is expected.
        required: keys that must be there.
        example: a valid value, for messages.
    """

    keys: Mapping[str, Shape] | None = None
    values: Shape | None = None
    plain: Check = Check("nothing", "", lambda value: value is None)
    single: bool = False
    required: tuple[str, ...] = ()
    example: str = ""


Shape = Union[Check, Table]


def check_recbole_options(values: Mapping[str, Any]) -> None:
    """Check those of ``values`` that :data:`SHAPES` names, at every depth.

    Raises:
        UserError: the first unknown key or bad value, named with its place such as
            `eval_args.mode.valid`.
    """
    for name, shape in SHAPES.items():
        if name in values:
            _check(name, values[name], shape)
    suffixes = values.get("additional_feat_suffix") or []
    sources = [*_SOURCES, *([suffixes] if isinstance(suffixes, str) else suffixes)]
    for name in ("load_col", "unload_col", "unused_col"):
        for source in values.get(name) or ():
            if source not in sources:
                raise UserError(
                    f"Unknown key `{source}` in option `{name}`, which is {values[name]!r}."
                    f"{did_you_mean(str(source), sources)} Expected the kind of a file: "
                    f"{_either(sources)}."
                )
    negatives = values.get("train_neg_sample_args")
    if not isinstance(negatives, Mapping) or not negatives.get("dynamic"):
        return
    if not negatives.get("candidate_num"):
        raise UserError(
            f"Option `train_neg_sample_args` is {dict(negatives)!r}; expected a `candidate_num` of "
            "at least 1: with `dynamic` the negative is chosen among so many."
        )


def _check(name: str, value: Any, shape: Shape) -> None:
    if isinstance(shape, Check):
        if not shape.accepts(value):
            raise UserError(f"Option `{name}` is {value!r}; expected {shape.expected}.")
    elif isinstance(value, Mapping):
        _check_table(name, value, shape)
    elif not shape.plain.accepts(value):
        also = f"{shape.plain.expected}, or " if shape.plain.expected else ""
        raise UserError(
            f"Option `{name}` is {value!r}; expected {also}a table (a dict), such as "
            f"{shape.example}."
        )


def _check_table(name: str, value: Mapping[Any, Any], table: Table) -> None:
    for key, inner in value.items():
        if table.keys is not None and key not in table.keys:
            raise UserError(
                f"Unknown key `{key}` in option `{name}`, which is {dict(value)!r}."
                f"{did_you_mean(str(key), table.keys)} Expected {_either(table.keys)}."
            )
        shape = table.values if table.keys is None else table.keys[key]
        if shape is not None:
            _check(f"{name}.{key}", inner, shape)
    if (table.single and len(value) != 1) or not set(table.required) <= set(value):
        which = f"exactly one of {_either(table.keys)}" if table.keys else "exactly one column"
        if table.required:
            which = f"the key {_either(table.required)}"
        raise UserError(
            f"Option `{name}` is {dict(value)!r}; expected {which}, such as {table.example}."
        )


def _either(names: Any) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _choice(*words: Any) -> Check:
    shown = ["nothing" if word is None else str(word) for word in words]
    return Check(f"one of {', '.join(shown)}", "str", lambda value: value in words)


def _in_any_case(words: tuple[str, ...]) -> Check:
    """Return the check of a word that RecBole compares without case."""
    known = {word.lower() for word in words}
    return Check(
        f"one of {', '.join(words)}",
        "str",
        lambda value: isinstance(value, str) and value.lower() in known,
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_mode(value: Any) -> bool:
    if value in ("full", "labeled"):
        return True
    return (
        _is_text(value) and value[:3] in ("uni", "pop") and value[3:].isdigit() and value[3:] > "0"
    )


def _are_shares(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) == 3
        and all(is_number(share) and share >= 0 for share in value)
        and value[0] > 0
    )


def _is_value_filter(value: Any) -> bool:
    """Return True for intervals of numbers, or for a list of values to keep."""
    return is_filled(value, lambda part: isinstance(part, (str, int, float))) or (
        isinstance(value, str) and are_intervals(value)
    )


def _is_encoding(value: Any) -> bool:
    try:
        return value is None or bool(codecs.lookup(value))
    except (LookupError, TypeError):
        return False


_NAME = Check("a name", "str", _is_text)
_NAMES = Check(
    "a list of names", "list", lambda v: isinstance(v, (list, tuple)) and all(map(_is_text, v))
)
# Empty in RecBole's own file of ml-100k.
_KG_INTERVALS = Check(
    "intervals such as [5,inf), or nothing", "str", lambda v: v is None or are_intervals(v)
)
_SOME_NAMES = Check(
    f"{_NAMES.expected}, or nothing", "list", lambda v: v is None or _NAMES.accepts(v)
)
_SUFFIXES = Check(f"a name, {_NAMES.expected}, or nothing", "list",
                  lambda v: _is_text(v) or _SOME_NAMES.accepts(v))  # fmt: skip
_PATH = Check("a path as text (a number in quotes twice: \"'2024'\")", "str", _is_text)
_OPTIONAL_PATH = Check(f"{_PATH.expected}, or nothing", "str", lambda v: v is None or _is_text(v))
_BOOL, _NOT_NEGATIVE, _POSITIVE = check_of(bool), check_of(NotNegative), check_of(Positive)
_NUMBER = check_of(float)
_INTERVALS = Check(
    "intervals such as [3,5] or (0,2];[4,inf) for a column of numbers, a list of values to keep "
    "for one of tokens",
    "",
    _is_value_filter,
)
_MODE = Check("full, labeled, uniN or popN (N candidates, such as uni100)", "str", _is_mode)
_SHARES = Check(
    "three shares of at least 0, the first above 0, such as [0.8,0.1,0.1]",
    "list",
    _are_shares,
)
_ONLY_A_TABLE = Check("", "", lambda value: False)
_NONE = (None, "None", "none")
_COUNT = Check("an integer of at least 1", "int",
               lambda v: v in _NONE or (is_integer(v) and v >= 1))  # fmt: skip
_POWER = Check("a number of at least 0", "float",
               lambda v: v in _NONE or (is_number(v) and v >= 0))  # fmt: skip
_COLUMNS = Table(
    values=Check(
        "a list of names, or '*' for all", "list", lambda v: v == "*" or _NAMES.accepts(v)
    ),
    example="{'inter':['user_id','item_id','timestamp']}",
)
_SOURCES = ("inter", "user", "item", "kg", "link", "net")  # kinds of RecBole's files
_FIELDS = ("USER_ID_FIELD", "ITEM_ID_FIELD", "RATING_FIELD", "TIME_FIELD", "LABEL_FIELD",
           "NEG_PREFIX", "ITEM_LIST_LENGTH_FIELD", "LIST_SUFFIX", "POSITION_FIELD",
           "HEAD_ENTITY_ID_FIELD", "TAIL_ENTITY_ID_FIELD", "RELATION_ID_FIELD",
           "ENTITY_ID_FIELD")  # fmt: skip
_SWITCHES = ("use_gpu", "reproducibility", "show_progress", "log_wandb", "shuffle", "require_pow",
             "enable_amp", "enable_scaler", "repeatable", "valid_metric_bigger",
             "filter_inter_by_user_or_item", "kg_reverse_r")  # fmt: skip

#: What RecBole's options may hold, as far as no settings class says it.
#: What CUDA_VISIBLE_DEVICES takes, too: numbers, or names such as GPU-5ebe9f43.
_GPUS = re.compile(r"(-?\d+|(GPU|MIG)-[\w/-]+)?(\s*,\s*(\d+|(GPU|MIG)-[\w/-]+))*")
SHAPES: dict[str, Shape] = {
    **dict.fromkeys(_SWITCHES, _BOOL),
    "state": _in_any_case(_STATES),
    "worker": _NOT_NEGATIVE,
    "gpu_id": Check(
        "the number of a GPU, or several such as '0,1'",
        "str",
        lambda v: v is None or bool(_GPUS.fullmatch(str(v))),
    ),
    "data_path": _PATH,
    "checkpoint_dir": _PATH,
    "wandb_project": _NAME,
    "encoding": Check("an encoding such as utf-8 or latin-1, or nothing", "str", _is_encoding),
    "learner": _in_any_case(LEARNERS),
    "clip_grad_norm": Table(
        keys={
            "max_norm": check_of(PositiveNumber),
            "norm_type": check_of(PositiveNumber),
            "error_if_nonfinite": _BOOL,
            "foreach": check_of(Optional[bool]),
        },
        required=("max_norm",),
        example="{'max_norm':5}",
    ),
    "loss_decimal_place": _NOT_NEGATIVE,
    "metric_decimal_place": _NOT_NEGATIVE,
    "tail_ratio": check_of(Optional[PositiveNumber]),
    "transform": _choice(*_TRANSFORMS, None),
    "train_neg_sample_args": Table(
        keys={
            "distribution": _choice("uniform", "popularity", "none", "None", None),
            "sample_num": _COUNT,
            "alpha": _POWER,
            "dynamic": _BOOL,
            "candidate_num": _NOT_NEGATIVE,
        },
        plain=Check("nothing", "", lambda value: value is None or value == "None"),
        example="{'distribution':'uniform','sample_num':1}",
    ),
    "eval_args": Table(
        keys={
            "split": Table(
                keys={
                    "LS": _choice("valid_and_test", "valid_only", "test_only"),
                    "RS": _SHARES,
                    "TS": _SHARES,
                },
                plain=_ONLY_A_TABLE,
                single=True,
                example="{'LS':'valid_and_test'}",
            ),
            "group_by": Check(
                "user or none", "str", lambda v: v is None or str(v).lower() in ("user", "none")
            ),
            "order": _choice("TO", "RO"),
            "mode": Table(
                keys={"valid": _MODE, "test": _MODE},
                plain=_MODE,
                example="{'valid':'uni100','test':'full'}",
            ),
        },
        plain=_ONLY_A_TABLE,
        example="{'mode':'full'}",
    ),
    **dict.fromkeys(_FIELDS, _NAME),
    "field_separator": check_of(str),
    "seq_separator": check_of(str),
    "seq_len": Table(values=_POSITIVE, example="{'class':5}"),
    "threshold": Table(values=_NUMBER, single=True, example="{'rating':4}"),
    "numerical_features": _NAMES,
    "load_col": _COLUMNS,
    "unload_col": _COLUMNS,
    "unused_col": _COLUMNS,
    "additional_feat_suffix": _SUFFIXES,
    "rm_dup_inter": _choice("first", "last", None),
    "val_interval": Table(values=_INTERVALS, example="{'rating':'[3,inf)'}"),
    "entity_kg_num_interval": _KG_INTERVALS,
    "relation_kg_num_interval": _KG_INTERVALS,
    **{f"alias_of_{kind}_id": _SOME_NAMES for kind in ("user", "item", "entity", "relation")},
    "preload_weight": Table(values=_NAME, example="{'ent_id':'ent_emb'}"),
    "normalize_field": _SOME_NAMES,
    "normalize_all": check_of(Optional[bool]),
    "discretization": Table(
        values=Table(
            keys={"method": _choice("ED", "LD"), "bucket": _POSITIVE},
            plain=_ONLY_A_TABLE,
            required=("method",),
            example="{'method':'ED','bucket':10}",
        ),
        example="{'price':{'method':'ED','bucket':10}}",
    ),
    "benchmark_filename": _SOME_NAMES,
}
