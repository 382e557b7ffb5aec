"""Model name -> trainer class."""

from __future__ import annotations

from typing import Any

from recbole.utils import ModelType
from recbole.utils import get_trainer as get_recbole_trainer

from recbole_bbqrec.model.registry import get_model
from recbole_bbqrec.trainer.history_trainer import HistoryTrainer
from recbole_bbqrec.trainer.recbole_trainer import with_safe_checkpoints
from recbole_bbqrec.trainer.two_phase_trainer import TwoPhaseTrainer


def get_trainer_class(model: str) -> Any:
    """The trainer class of a model; RecBole's own trainers get our safe checkpoints."""
    model_class = get_model(model)
    if getattr(model_class, "two_phase", False):
        return TwoPhaseTrainer
    if getattr(model_class, "trains_on_histories", False):
        return HistoryTrainer
    return with_safe_checkpoints(get_recbole_trainer(ModelType.SEQUENTIAL, model))
