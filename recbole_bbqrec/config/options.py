"""Options of all models: computed from the settings classes, checked before any work starts.

RecBole reads a missing or misspelt key as ``None`` and goes on. Here an unknown key is an error
that names the nearest known one, so is one that the model does not read, and a value out of range
is an error that names the range.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Optional, Union

from recbole_bbqrec.config.checks.intervals import are_intervals
from recbole_bbqrec.data.layout.settings import LayoutSettings
from recbole_bbqrec.data.protocol.settings import SplitSettings
from recbole_bbqrec.errors import UserError, did_you_mean
from recbole_bbqrec.generator.settings import GeneratorSettings
from recbole_bbqrec.model import baseline_settings
from recbole_bbqrec.model import settings as model_settings
from recbole_bbqrec.model.settings import TrainingSettings
from recbole_bbqrec.settings import (
    Check,
    OptionalPositive,
    OptionalText,
    Positive,
    Settings,
    between,
    checks_by_option,
    is_filled,
    is_integer,
    names_of,
    option,
)
from recbole_bbqrec.tokenizer.bbq.settings import BBQSettings
from recbole_bbqrec.tokenizer.rqvae.settings import (
    CollaborativeSettings,
    CoSTSettings,
    LETTERSettings,
    RQVAESettings,
)


def _is_names(value: Any) -> bool:
    return isinstance(value, str) or is_filled(value, lambda name: isinstance(name, str))


def _are_columns(value: Any) -> bool:
    return is_filled(value, lambda name: isinstance(name, str) and name != "")


def _is_cutoffs(value: Any) -> bool:
    value = [value] if is_integer(value) else value  # RecBole takes a single one, too
    return is_filled(value, lambda k: is_integer(k) and k >= 1)


Intervals = Optional[
    Annotated[
        str,
        Check(
            "intervals such as [5,inf) or (4,20];[50,inf), each end in it or not by its bracket",
            "str",
            are_intervals,
        ),
    ]
]
Names = Annotated[
    Union[str, tuple[str, ...]], Check("a name or a list of at least one name", "list", _is_names)
]
Cutoffs = Annotated[
    tuple[int, ...],
    Check("an integer of at least 1, or a list of some", "list of int", _is_cutoffs),
]
OptionalColumns = Optional[
    Annotated[
        tuple[str, ...],
        Check("a list of at least one column, as [title]", "list of str", _are_columns),
    ]
]
Seed = Annotated[int, between(0, 2**32 - 1)]  # as NumPy takes it


@dataclass(frozen=True)
class RunSettings(Settings):
    """Options of every run that RecBole does not have; overall.yaml."""

    mask_history: bool = option(
        False, "Remove a user's last MAX_ITEM_LIST_LENGTH items from the ranking."
    )
    resume: OptionalText = option(
        None, "`auto`, a run directory or a resume.pth: continue that run."
    )
    tune_allocator: bool = option(True, "Keep freed memory in the process (Linux/glibc).")
    num_threads: OptionalPositive = option(None, "Threads of torch; empty: torch's default.")
    prepare: bool = option(False, "Make the data set if it is absent.")
    save_data: bool = option(True, "Keep the data that the run read, so that it answers alone.")
    log_mlflow: OptionalText = option(
        None, "Experiment on MLflow that gets curves, options and metrics; empty: none."
    )
    text_columns: OptionalColumns = option(
        None, "Columns of <Dataset>.item that make the items' text, where there are no text files."
    )


@dataclass(frozen=True)
class ProtocolSettings(Settings):
    """Options of every run that RecBole has and does not check; overall.yaml."""

    seed: Seed = option(2020, "Of all random draws.")
    user_inter_num_interval: Intervals = option(
        "[5,inf)", "How many interactions a user must have to be kept."
    )
    item_inter_num_interval: Intervals = option(
        "[5,inf)", "How many interactions an item must have to be kept."
    )
    max_history: Positive = option(
        20, "Length of a history, its last items.", name="MAX_ITEM_LIST_LENGTH"
    )
    metrics: Names = option(("Recall", "NDCG"), "Reported metrics.")
    topk: Cutoffs = option((5, 10), "Cut-offs of the metrics.")
    valid_metric: str = option("NDCG@10", "Metric of early stopping, on the validation split.")


#: Settings of phase one, whose options a search on fixed semantic IDs cannot change.
PHASE_ONE = (
    BBQSettings,
    RQVAESettings,
    LETTERSettings,
    CoSTSettings,
    CollaborativeSettings,
    model_settings.TIGERSettings,
    model_settings.PhaseOneSettings,
    model_settings.ModalitySettings,
)

#: Settings of phase two.
PHASE_TWO = (
    GeneratorSettings,
    model_settings.LETTERGenerationSettings,
    model_settings.GeneratorFeatureSettings,
    model_settings.NeighbourSettings,
    model_settings.PhaseTwoSettings,
)

#: Settings of the models that have one phase.
ONE_PHASE = (
    model_settings.HistoryTrainingSettings,
    baseline_settings.ESASRecSettings,
    baseline_settings.RPGSettings,
    baseline_settings.MISSRecSettings,
    baseline_settings.MMGRU4RecSettings,
    baseline_settings.MMSASRecSettings,
    baseline_settings.NOVABERTSettings,
    model_settings.STARSettings,
    model_settings.TGHSettings,
)

#: Heading to the settings below it, for lists of all options.
SETTINGS_BY_TOPIC: dict[str, tuple[type[Settings], ...]] = {
    "Every run": (RunSettings, ProtocolSettings, SplitSettings, LayoutSettings, TrainingSettings),
    "Phase one: items to semantic IDs": PHASE_ONE,
    "Phase two: generating the next item": PHASE_TWO,
    "Models of one phase": ONE_PHASE,
}

#: Options of every run, RecBole's own models included.
RUN_OPTIONS = checks_by_option(RunSettings, SplitSettings, LayoutSettings)

#: RecBole's options whose values RecBole itself does not check.
RECBOLE_OPTIONS = checks_by_option(TrainingSettings, ProtocolSettings)

#: Options of our models.
MODEL_OPTIONS = {
    name: check
    for name, check in checks_by_option(*PHASE_ONE, *PHASE_TWO, *ONE_PHASE).items()
    if name not in RECBOLE_OPTIONS
}

#: Options of phase two that phase one does not read; RecBole checks the learner.
PHASE_TWO_ONLY = (names_of(PHASE_TWO) | {"learner"}) - names_of(PHASE_ONE)


def check_known(keys: Iterable[str], known: Iterable[str], where: str) -> None:
    """Raise a UserError for the first of ``keys`` that is not in ``known``."""
    names = sorted(known)
    for key in keys:
        if key in names:
            continue
        hint = did_you_mean(key, names)
        raise UserError(f"Unknown option `{key}` {where}.{hint} Correct or remove it.")


#: Options among :data:`MODEL_OPTIONS` that every run accepts: the data set reads the modalities,
#: and `tokenize_only` has an error of its own for a model without a phase one.
OF_EVERY_RUN = frozenset({"modalities", "tokenize_only"})

#: RecBole's options that its training loop reads, but not the loops of this package.
OF_RECBOLES_LOOP = frozenset({"enable_amp", "enable_scaler", "require_pow", "transform"})

#: Two options for one thing; a model has the one or the other, by whose loop trains it.
_INSTEAD = {"enable_amp": "precision", "precision": "enable_amp"}

#: Names that RecBole's models have for an option of ours, where they are not alike.
_OURS = {
    "hidden_dropout_prob": "dropout", "attn_dropout_prob": "dropout", "dropout_prob": "dropout",
    "n_layers": "encoder_layers", "num_layers": "encoder_layers", "embedding_size": "hidden_size",
}  # fmt: skip


def nearest_read(key: str, read: Collection[str]) -> str:
    """Return " (read here: `x`)" for the option nearest to ``key`` among those ``read``, or ""."""
    near = [other for other in (_INSTEAD.get(key, ""), _OURS.get(key, "")) if other in read]
    near = near or difflib.get_close_matches(key, sorted(read), n=1, cutoff=0.7)
    return f" (read here: `{near[0]}`)" if near else ""


def is_default(key: str, value: Any) -> bool:
    """Return True for RecBole's default of an option that any resolved configuration holds."""
    return key in OF_RECBOLES_LOOP and not value


def check_read(
    values: Mapping[str, Any], read: Collection[str], model: str, listed_by: str
) -> None:
    """Raise a UserError for the first key of ``values`` that ``model`` would not read.

    Args:
        values: the options given.
        read: options that the model reads.
        model: its name.
        listed_by: command that lists its options, for the message.
    """
    for key, value in values.items():
        if key in read or is_default(key, value):
            continue
        other, dot, name = key.rpartition(".")
        if dot:
            raise UserError(
                f"Option `{key}` is for a model {other}, and this run is of {model}. Remove it, or "
                f"write `{name}` if {model} is meant."
            )
        elsewhere = key in MODEL_OPTIONS or key in _INSTEAD
        if _INSTEAD.get(key) in read:
            hint = f" Did you mean `{_INSTEAD[key]}`?"
        else:
            hint = did_you_mean(key, sorted(read), n=3 if elsewhere else 1)
        problem = f"Option `{key}` is not read by" if elsewhere else f"Unknown option `{key}` for"
        raise UserError(
            f"{problem} model {model}.{hint} Correct or remove it; all options of {model} are "
            f"written by {listed_by}."
        )


def check_values(values: Mapping[str, Any], options: Mapping[str, Check]) -> None:
    """Raise a UserError for the first present value that its option does not accept."""
    for key, check in options.items():
        if key in values and not check.accepts(values[key]):
            raise UserError(f"Option `{key}` is {values[key]!r}; expected {check.expected}.")
