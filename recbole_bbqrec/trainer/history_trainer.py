"""Training epochs over whole user histories for single-phase models.

One causal pass over a user trains all its prefixes; RecBole's loader would give the model one
padded row a prefix. Validation, early stopping and test are RecBole's, and so are the epochs:
both visit every (prefix, target) pair once, in batches of ``train_batch_size`` pairs.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from recbole.trainer import Trainer
from torch.nn.utils import clip_grad_norm_

from recbole_bbqrec.data.histories import Histories, HistoryBatches
from recbole_bbqrec.trainer.phases.diverged import diverged
from recbole_bbqrec.trainer.phases.optim import build_optimizer, set_learning_rate, warmup_cosine
from recbole_bbqrec.trainer.recbole_trainer import SafeCheckpoints

_UNDECAYED = ("embedding", "position", "norm", "fusion")


class HistoryEpochs(Trainer):
    """A RecBole trainer whose epoch runs over :class:`HistoryBatches`.

    The model is a :class:`~recbole_bbqrec.model.base.history_model.HistoryRecommender`. Adam or
    AdamW by ``learner``; ``weight_decay`` applies to matrices, not to embeddings. The rate is
    a function of the step, so a resumed run follows the same one: with ``lr_schedule: cosine`` it
    rises linearly over ``warmup_ratio`` of all steps and falls to zero by the last of ``epochs``.
    """

    _batches: HistoryBatches | None = None

    def _build_optimizer(self, **kwargs: Any) -> torch.optim.Optimizer:
        return build_optimizer(
            self.model.named_parameters(),
            learner=self.learner,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            undecayed=_UNDECAYED,
        )

    def _set_learning_rate(self, step: int, total: int) -> None:
        if self.config["lr_schedule"] == "cosine":
            factor = warmup_cosine(step, total, round(self.config["warmup_ratio"] * total))
            set_learning_rate(self.optimizer, self.learning_rate * factor)

    def history_batches(self, train_data: Any) -> HistoryBatches:
        """The batches of every epoch; the order is a function of (seed, epoch) alone."""
        if self._batches is None:
            self._batches = HistoryBatches(
                Histories.from_training_data(train_data._dataset),
                batch_size=self.config["train_batch_size"],
                max_length=self.config["MAX_ITEM_LIST_LENGTH"],
                encoding=self.model.encoding,
                seed=self.config["seed"],
            )
        return self._batches

    def _train_epoch(
        self,
        train_data: Any,
        epoch_idx: int,
        loss_func: Any = None,
        show_progress: bool = False,
    ) -> float:
        """Train one epoch and return its mean loss over the steps.

        Raises:
            UserError: the loss is not finite.
        """
        model, batches = self.model, self.history_batches(train_data)
        loss_of = loss_func or model.history_loss
        first_step = epoch_idx * len(batches)
        model.start_epoch(epoch_idx)
        model.train()
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for number, batch in enumerate(batches.epoch(epoch_idx)):
            self._set_learning_rate(first_step + number, self.epochs * len(batches))
            loss = loss_of(batch.to(self.device))
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if self.clip_grad_norm:
                clip_grad_norm_(model.parameters(), **self.clip_grad_norm)
            self.optimizer.step()
            total += loss.detach().double()
        mean = float(total) / len(batches)
        if not math.isfinite(mean):
            what = f"the training loss of epoch {epoch_idx} is {mean}"
            raise diverged(what, "learning_rate", self.learning_rate)
        return mean


class HistoryTrainer(SafeCheckpoints, HistoryEpochs):
    """:class:`HistoryEpochs` with safe checkpoints and exact resumption."""

    loss_is_mean = True
