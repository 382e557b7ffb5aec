"""Model name -> trainer class."""

from __future__ import annotations

from typing import Any

from recbole.utils import ModelType
from recbole.utils import get_trainer as get_recbole_trainer

from recbole_bbqrec.model.registry import spec
from recbole_bbqrec.trainer.history_trainer import HistoryTrainer
from recbole_bbqrec.trainer.recbole_trainer import with_safe_checkpoints
from recbole_bbqrec.trainer.two_phase_trainer import TwoPhaseTrainer


def get_trainer_class(model: str) -> Any:
    """Return the trainer class of a model; RecBole's own get safe checkpoints."""
    if spec(model).two_phase:
        return TwoPhaseTrainer
    if spec(model).trains_on_histories:
        return HistoryTrainer
    return with_safe_checkpoints(get_recbole_trainer(ModelType.SEQUENTIAL, model))
