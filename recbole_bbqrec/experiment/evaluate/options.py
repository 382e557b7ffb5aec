"""Options that can change when a saved model is evaluated: none affects weights or the split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.config.values import read_yaml
from recbole_bbqrec.config.yaml_files import properties_directory
from recbole_bbqrec.errors import UserError, did_you_mean
from recbole_bbqrec.model.registry import get_model

#: Option -> its effect, for the help text.
CHANGEABLE: dict[str, str] = {
    "model": "ESASRecNeighbours or VQRecNeighbours: ESASRec or VQRec with neighbours added",
    "mask_history": "keep a user's history out of the ranking",
    "num_beams": "width of the beam (generative models)",
    "cooccurrence_weight": "of items chosen after the history's (models with neighbours)",
    "feature_similarity_weight": "of items with features like the history's (the same models)",
    "neighbour_decay": "decay of both weights per item further back in the history",
    "topk": "cut-offs of the metrics",
    "metrics": "Recall, NDCG, Hit, MRR, Precision, ...",
    "eval_batch_size": "users ranked at once",
    "precision": "float32, bfloat16 or auto (models that have the option)",
    "num_threads": "threads of torch",
    "data_path": "location of the data set",
}

#: The changeable options that affect the ranking; the others measure the same ranking.
OF_THE_RANKING = (
    "model", "mask_history", "num_beams", "precision",
    "cooccurrence_weight", "feature_similarity_weight", "neighbour_decay",
)  # fmt: skip


def check_changeable(keys: Iterable[str]) -> None:
    """Raise a UserError for the first key that an evaluation cannot change."""
    for key in keys:
        if key in CHANGEABLE:
            continue
        hint = did_you_mean(key, CHANGEABLE)
        raise UserError(
            f"Option `{key}` cannot be changed when a finished run is evaluated.{hint} Options "
            f"that can: {', '.join(CHANGEABLE)}."
        )


def model_to_rank_with(trained: str, values: Mapping[str, Any]) -> str:
    """Return the model to rank with, given weights of ``trained``: option `model` if it can.

    A model with neighbours is trained exactly like the model to which it adds them.

    Raises:
        UserError: no model has the name given in ``values``.
    """
    name = values.get("model", trained)
    model: Any = get_model(name)
    adds = getattr(model, "adds_neighbours", False) and model.properties_base == trained
    return name if adds else trained


def own_options(model: str, dataset: str) -> dict[str, Any]:
    """Return the options of the model's own YAML file, with their values for the data set."""
    names = read_yaml(properties_directory() / "model" / f"{model}.yaml")
    config = BBQRecConfig(model, dataset)
    return {name: config[name] for name in names}


def is_used_by(model: str, key: str) -> bool:
    """Return True if the model reads the option, one of :data:`CHANGEABLE`, when it ranks."""
    model_class = get_model(model)
    generative = getattr(model_class, "two_phase", False)
    if key == "num_beams":
        return generative
    if key == "cooccurrence_weight":
        return bool(getattr(model_class, "use_id", False))
    if key in ("feature_similarity_weight", "neighbour_decay"):
        return hasattr(model_class, "use_id")
    if key == "precision":
        return generative or getattr(model_class, "trains_on_histories", False)
    return True


def check_used(values: Mapping[str, Any], trained: Iterable[str]) -> None:
    """Raise a UserError for an option that none of the models ``trained`` reads."""
    names = sorted({model_to_rank_with(name, values) for name in trained})
    if values.get("model", names[0]) not in names:
        raise UserError(
            f"Option `model` is {values['model']}, which cannot rank with the weights of "
            f"{', '.join(names)}: expected the model that adds neighbours to the one trained, such "
            "as ESASRecNeighbours for a run of ESASRec. Remove it."
        )
    for key in values:
        if not any(is_used_by(name, key) for name in names):
            raise UserError(
                f"Option `{key}` is given, but {', '.join(names)} does not read it. Remove it."
            )
