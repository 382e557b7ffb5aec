"""The options that a saved model can be evaluated under: none changes its weights or the split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.config.values import read_yaml
from recbole_bbqrec.config.yaml_files import properties_directory
from recbole_bbqrec.errors import UserError, did_you_mean
from recbole_bbqrec.model.registry import spec

#: Key -> what it changes, for the help text.
CHANGEABLE: dict[str, str] = {
    "model": "ESASRecNeighbours or VQRecNeighbours: their networks with neighbours added",
    "mask_history": "keep a user's history out of the ranking",
    "num_beams": "width of the beam, of generative models",
    "cooccurrence_weight": "of items chosen after the history's, of models with neighbours",
    "feature_similarity_weight": "of items with features like the history's, likewise",
    "neighbour_decay": "by how many items ago, of both",
    "topk": "cut-offs of the metrics",
    "metrics": "Recall, NDCG, Hit, MRR, Precision, ...",
    "eval_batch_size": "users ranked at once",
    "precision": "float32, bfloat16 or auto, of models that have the option",
    "num_threads": "threads of torch",
    "data_path": "where the data set is now",
}

#: Those of them that can change which items a user is given; the rest measure the same ranking.
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
            f"Option `{key}` cannot be changed when a finished run is evaluated.{hint} What can "
            f"be changed: {', '.join(CHANGEABLE)}."
        )


def model_to_rank_with(trained: str, values: Mapping[str, Any]) -> str:
    """The model that ranks with the weights of a run of ``trained``: option `model`, if it can.

    A model with neighbours is trained exactly as the one that it adds them to.

    Raises:
        UserError: there is no model of the name that ``values`` give.
    """
    wanted = values.get("model", trained)
    return wanted if spec(wanted).trained_as == trained else trained


def own_options(model: str, dataset: str) -> dict[str, Any]:
    """The options that the model's own YAML file adds to its base's, as the data set has them."""
    names = read_yaml(properties_directory() / "model" / f"{model}.yaml")
    config = BBQRecConfig(model, dataset)
    return {name: config[name] for name in names}


def is_used_by(model: str, key: str) -> bool:
    """Whether the model of that name reads the option of :data:`CHANGEABLE` when it ranks."""
    facts = spec(model)
    if key == "num_beams":
        return facts.two_phase
    if key == "cooccurrence_weight":
        return facts.ranks_by_neighbours and facts.uses_id
    if key in ("feature_similarity_weight", "neighbour_decay"):
        return facts.ranks_by_neighbours
    if key == "precision":
        return facts.two_phase or facts.trains_on_histories
    return True


def check_used(values: Mapping[str, Any], trained: Iterable[str]) -> None:
    """Raise a UserError for an option that no run, of the models ``trained``, has a use for."""
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
