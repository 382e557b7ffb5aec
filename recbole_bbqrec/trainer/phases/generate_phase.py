"""Phase two as a trainable phase: fit the generator on the semantic IDs (paper, 4.2)."""

from __future__ import annotations

import math
from typing import Any, Callable

import torch
from torch.nn.utils import clip_grad_norm_

from recbole_bbqrec.data.histories import HistoryBatches
from recbole_bbqrec.protocols import RunConfig
from recbole_bbqrec.trainer.phases.diverged import diverged
from recbole_bbqrec.trainer.phases.loop import Phase, Steps, Validation
from recbole_bbqrec.trainer.phases.optim import build_optimizer, set_learning_rate, warmup_cosine
from recbole_bbqrec.trainer.phases.terms import TermMeans

_SHOW_EVERY = 20  # steps between updates of the progress bar's text
_UNDECAYED = ("gate", "position", "norm", "items")  # gate: the similarity tables


class GeneratePhase(Phase):
    """Trains the generator of a :class:`GenerativeRecommender`.

    Args:
        config: the run's configuration.
        model: a tokenized model.
        batches: training histories.
        evaluate: metrics of the model's present weights on the validation split, or None.
        save_model: writes the model as the best so far.
    """

    name = "generate"

    def __init__(
        self,
        config: RunConfig,
        model: Any,
        batches: HistoryBatches,
        evaluate: Callable[[], dict[str, float]] | None,
        save_model: Callable[[int], None],
        load_model: Callable[[], None] | None,
    ) -> None:
        self.model, self.batches, self.evaluate = model, batches, evaluate
        self.save_model, self.load_model = save_model, load_model
        self.device = torch.device(config["device"])
        self.epochs = config["epochs"]
        self.eval_step = min(config["eval_step"], self.epochs) if evaluate is not None else 0
        self.stopping_step = config["stopping_step"]
        self.valid_metric = config["valid_metric"].lower()
        self.bigger = config["valid_metric_bigger"]
        self.learning_rate = config["learning_rate"]
        self.warmup_steps = round(config["warmup_ratio"] * self.epochs * len(batches))
        self.clip: dict[str, Any] = config["clip_grad_norm"] or {}
        self.optimizer = build_optimizer(
            model.generator.named_parameters(),
            learner=config["learner"],
            learning_rate=self.learning_rate,
            weight_decay=config["weight_decay"],
            undecayed=_UNDECAYED,
        )
        self.best: dict[str, torch.Tensor] = {}
        self.epoch = 0

    def steps(self, epoch: int) -> int:
        return len(self.batches)

    def train_epoch(self, epoch: int) -> Steps:
        model, means = self.model, TermMeans()
        model.train()
        self.epoch = epoch
        parameters = list(model.generator.parameters())
        total = self.epochs * len(self.batches)
        for number, batch in enumerate(self.batches.epoch(epoch)):
            step = epoch * len(self.batches) + number
            factor = warmup_cosine(step, total, self.warmup_steps)
            set_learning_rate(self.optimizer, self.learning_rate * factor)
            loss, terms = model.history_loss(batch.to(self.device))
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if self.clip:
                clip_grad_norm_(parameters, **self.clip)
            self.optimizer.step()
            means.add({"loss": loss, **terms})
            show = number % _SHOW_EVERY == _SHOW_EVERY - 1
            yield {"loss": means.means()["loss"]} if show else None
        losses = means.means()
        if math.isnan(losses["loss"]):
            what = f"the generator's training loss of epoch {epoch} is nan"
            raise diverged(what, self.rate_option, self.learning_rate)
        return losses

    def validate(self, epoch: int) -> Validation:
        if self.evaluate is None:
            return Validation(None, {})
        metrics = {name.lower(): float(value) for name, value in self.evaluate().items()}
        score = metrics[self.valid_metric]
        return Validation(score if self.bigger else -score, metrics)

    def keep_best(self) -> None:
        self.best = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.save_model(self.epoch)

    def load_best(self) -> None:
        if self.best:
            self.model.load_state_dict(self.best)
        elif self.load_model is not None:
            self.load_model()

    def state(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
