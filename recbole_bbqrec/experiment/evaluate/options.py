"""The options that a saved model can be evaluated under: none changes the model or the split."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.registry import get_model

#: Key -> what it changes, for the help text.
CHANGEABLE: dict[str, str] = {
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
    "mask_history", "num_beams", "precision",
    "cooccurrence_weight", "feature_similarity_weight", "neighbour_decay",
)  # fmt: skip


def check_changeable(keys: Iterable[str]) -> None:
    """Raise a UserError for the first key that an evaluation cannot change."""
    for key in keys:
        if key in CHANGEABLE:
            continue
        near = difflib.get_close_matches(key, CHANGEABLE, n=1, cutoff=0.6)
        hint = f" Did you mean `{near[0]}`?" if near else ""
        raise UserError(
            f"Option `{key}` cannot be changed when a finished run is evaluated.{hint} What can "
            f"be changed: {', '.join(CHANGEABLE)}."
        )


def check_values(values: Mapping[str, Any]) -> None:
    """Refuse empty lists, which RecBole does not check for; raises UserError."""
    for key in ("metrics", "topk"):
        if key in values and not values[key]:
            raise UserError(f"Option `{key}` is {values[key]!r}; expected at least one value.")


def is_used_by(model: str, key: str) -> bool:
    """Whether the model of that name reads the option of :data:`CHANGEABLE` when it ranks."""
    kind = get_model(model)
    generative = getattr(kind, "two_phase", False)
    if key == "num_beams":
        return generative
    if key == "cooccurrence_weight":
        return bool(getattr(kind, "use_id", False))
    if key in ("feature_similarity_weight", "neighbour_decay"):
        return hasattr(kind, "use_id")
    if key == "precision":
        return generative or getattr(kind, "trains_on_histories", False)
    return True


def check_used(values: Mapping[str, Any], models: Iterable[str]) -> None:
    """Raise a UserError for an option that no model of the command reads."""
    names = sorted(set(models))
    for key in values:
        if not any(is_used_by(name, key) for name in names):
            raise UserError(
                f"Option `{key}` is given, but {', '.join(names)} does not read it. Remove it."
            )
