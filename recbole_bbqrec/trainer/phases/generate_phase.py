"""Phase two as a trainable phase: fit the generator on the semantic IDs (paper, 4.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable

import torch

from recbole_bbqrec.data.histories import HistoryBatches
from recbole_bbqrec.distributed import sums
from recbole_bbqrec.nn import optim
from recbole_bbqrec.protocols import RunConfig
from recbole_bbqrec.trainer.phases.loop import Phase, Validation

_UNDECAYED = ("gate", "position", "norm", "items")  # gate: the similarity tables


class GeneratePhase(Phase):
    """Trains the generator of a :class:`GenerativeRecommender`.

    Args:
        config: the run's configuration.
        model: a tokenized model.
        batches: training histories.
        evaluate: measures the present weights on the validation split; None for no validation.
        save_model: writes the model as the best so far, given its epoch.
        load_model: reads what ``save_model`` wrote, for a run that was resumed after training.
    """

    name = "generate"

    def __init__(
        self,
        config: RunConfig,
        model: Any,
        batches: HistoryBatches,
        evaluate: Callable[[], dict[str, float]] | None,
        save_model: Callable[[int], None],
        load_model: Callable[[], None],
    ) -> None:
        self.model, self.batches, self.evaluate = model, batches, evaluate
        self.save_model, self.load_model = save_model, load_model
        self.seed = config["seed"]
        self.epochs = config["epochs"]
        self.eval_step = min(config["eval_step"], self.epochs) if evaluate is not None else 0
        self.stopping_step = config["stopping_step"]
        self.valid_metric = config["valid_metric"].lower()
        self.bigger = config["valid_metric_bigger"]
        self.learning_rate = config["learning_rate"]
        self.warmup_steps = round(config["warmup_ratio"] * self.epochs * len(batches))
        self.schedule = config["lr_schedule"]
        self.clip = config["clip_grad_norm"]
        self.optimizer = optim.build_optimizer(
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

    def train_epoch(
        self, epoch: int, on_step: Callable[[Mapping[str, torch.Tensor]], None]
    ) -> None:
        self.epoch = epoch
        model, n_steps = self.model, len(self.batches)
        sums.synchronise(model)
        sums.draw_apart(self.seed, epoch)
        model.train()
        schedule = None
        if self.schedule == "cosine":
            schedule = optim.cosine_schedule(
                self.optimizer,
                self.learning_rate,
                total=self.epochs * n_steps,
                warmup=self.warmup_steps,
                done=epoch * n_steps,
            )
        for batch in (whole.mine() for whole in self.batches.epoch(epoch)):
            self.before_loss()
            loss, terms = model.history_loss(batch)
            self.after_loss(loss, batch._asdict(), model, epoch)
            loss, *parts = (term * batch.share for term in (loss, *terms.values()))
            self.last_rate = optim.step(
                loss, model.generator, self.optimizer, schedule=schedule, clip=self.clip
            )
            on_step({"loss": loss, **dict(zip(terms, parts))})

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
        else:
            self.load_model()

    def state(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
