"""Training epochs over whole user histories for single-phase models.

One causal pass over a user trains all prefixes; RecBole's loader yields one padded row per prefix.
Both visit every (prefix, target) pair once an epoch, in batches of ``train_batch_size`` pairs.
Validation, early stopping and test are RecBole's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from recbole.trainer import Trainer
from torch.optim.lr_scheduler import LambdaLR

from recbole_bbqrec.data.histories import Histories, HistoryBatches
from recbole_bbqrec.distributed import sums
from recbole_bbqrec.nn import optim
from recbole_bbqrec.trainer.phases.loop import diverged
from recbole_bbqrec.trainer.recbole_trainer import SafeCheckpoints

_UNDECAYED = ("embedding", "position", "norm", "fusion")


class HistoryEpochs(Trainer):
    """A RecBole trainer whose epoch runs over :class:`HistoryBatches`.

    The model is a :class:`~recbole_bbqrec.model.base.history_model.HistoryRecommender`. Adam or
    AdamW by ``learner``; ``weight_decay`` applies to matrices, not to embeddings. With
    ``lr_schedule: cosine`` the rate rises linearly over ``warmup_ratio`` of all steps and falls to
    zero by the end of ``epochs``.
    """

    last_rate: float | None = None  # learning rate of the latest step
    _batches: HistoryBatches | None = None

    def _build_optimizer(self, **kwargs: Any) -> torch.optim.Optimizer:
        return optim.build_optimizer(
            self.model.named_parameters(),
            learner=self.learner,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            undecayed=_UNDECAYED,
            betas=self.model.adam_betas,
        )

    def _schedule(self, epoch: int, n_steps: int) -> LambdaLR | None:
        """Return the schedule from the start of ``epoch`` on; None for a constant rate."""
        if self.config["lr_schedule"] != "cosine":
            return None
        total = self.epochs * n_steps
        warmup = round(self.config["warmup_ratio"] * total)
        return optim.cosine_schedule(
            self.optimizer, self.learning_rate, total=total, warmup=warmup, done=epoch * n_steps
        )

    def history_batches(self, train_data: Any) -> HistoryBatches:
        """Return the batches of all epochs; their order depends on (seed, epoch) alone."""
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
        schedule = self._schedule(epoch_idx, len(batches))
        model.start_epoch(epoch_idx)
        sums.synchronise(model)
        sums.draw_apart(self.config["seed"], epoch_idx)
        model.train()
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for batch in (whole.mine() for whole in batches.epoch(epoch_idx)):
            loss = loss_of(batch.to(self.device)) * batch.share
            self.last_rate = optim.step(
                loss, model, self.optimizer, schedule=schedule, clip=self.clip_grad_norm
            )
            total += loss.detach().double()
        mean = float(sums.total(total)) / len(batches)
        if not math.isfinite(mean):
            what = f"the training loss of epoch {epoch_idx} is {mean}"
            raise diverged(what, self.learning_rate)
        return mean


class HistoryTrainer(SafeCheckpoints, HistoryEpochs):
    """:class:`HistoryEpochs` with safe checkpoints and exact resumption."""

    loss_is_mean, shares_rows = True, False

    def _loss_function(self) -> Callable[[Any], Any]:
        loss: Callable[[Any], Any] = self.model.history_loss
        return loss
