"""The epoch loop of both phases: train, validate, keep the best, checkpoint, stop.

The loop knows no network and no data; a :class:`Phase` defines what an epoch is.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Callable

import torch
from tqdm import tqdm

from recbole_bbqrec.distributed import group
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.runtime import trim_memory
from recbole_bbqrec.trainer.phases.nan_check import NanCheck
from recbole_bbqrec.trainer.phases.progress import TermMeans, progress_bar

_SHOW_EVERY = 20  # steps between updates of the bar's text: each update waits for the device


@dataclass(frozen=True)
class Validation:
    """Result of one validation.

    Attributes:
        score: larger is better; None without a validation signal: the last epoch is then the best.
        metrics: values to log.
    """

    score: float | None
    metrics: dict[str, float]


@dataclass
class LoopState:
    """State of the loop, as a checkpoint stores it."""

    epoch: int = 0  # finished epochs
    best_score: float = -math.inf
    best_epoch: int = -1
    best_metrics: dict[str, float] = field(default_factory=dict)
    bad_evaluations: int = 0  # since the best one
    seconds: float = 0.0
    finished: bool = False
    history: list[dict[str, Any]] = field(default_factory=list)  # lines of run_files/epochs.py

    def to_plain(self) -> dict[str, Any]:
        return asdict(self)


def diverged(what: str, value: float, option: str = "learning_rate", kept: str = "") -> UserError:
    """Return the error for training that left the range of numbers.

    ``what`` was seen, such as "the training loss is nan"; ``value`` is that of ``option``; ``kept``
    is a sentence that says what was kept.
    """
    return UserError(
        f"Option `{option}` is {value:g}: {what}; expected a finite number. Training has diverged: "
        f"start a new run with a lower --{option}.{kept}"
    )


class Phase(ABC):
    """One trainable stage."""

    name: str
    epochs: int
    eval_step: int  # epochs between validations; 0 for none
    stopping_step: int  # validations in a row without improvement that are allowed
    learning_rate: float  # peak of the schedule
    rate_option = "learning_rate"  # the option that sets it
    last_rate = 0.0  # learning rate of the latest step
    objective = "loss"  # the loss term that is minimised
    check: NanCheck | None = None  # of the loss of each step

    @abstractmethod
    def train_epoch(
        self, epoch: int, on_step: Callable[[Mapping[str, torch.Tensor]], None]
    ) -> None:
        """Train one epoch and call ``on_step`` with the loss terms (scalars) of every step."""

    def end_epoch(self, epoch: int) -> dict[str, float]:
        """Return statistics to log with the losses."""
        return {}

    @abstractmethod
    def steps(self, epoch: int) -> int:
        """Return the number of steps of an epoch."""

    @abstractmethod
    def validate(self, epoch: int) -> Validation: ...

    @abstractmethod
    def keep_best(self) -> None:
        """Remember (and write) the present weights as the best."""

    @abstractmethod
    def load_best(self) -> None: ...

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return all that training changes: weights, optimizers, counters."""

    @abstractmethod
    def load_state(self, state: dict[str, Any]) -> None: ...

    def diverged(self, what: str, kept: str = "") -> UserError:
        """Return the error for ``what``, naming the option of this phase's learning rate."""
        return diverged(what, self.learning_rate, self.rate_option, kept)

    def before_loss(self) -> None:
        """Note what the loss of a step depends on; a subclass calls it before the loss."""
        if self.check is not None:
            self.check.before()

    def after_loss(
        self,
        loss: torch.Tensor,
        batch: Mapping[str, torch.Tensor],
        network: torch.nn.Module,
        epoch: int,
    ) -> None:
        """Raise the error for a loss that is NaN; a subclass calls it before the step.

        Raises:
            UserError: it names the file with the batch.
        """
        kept = None if self.check is None else self.check.after(loss, batch, network, epoch)
        if kept is not None:
            raise self.diverged(f"the training loss of {self.name} epoch {epoch} is nan", kept)


def run_phase(
    phase: Phase,
    state: LoopState,
    checkpoint: Callable[[], None],
    *,
    show_progress: bool,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
    on_saved: Callable[[dict[str, Any]], None] | None = None,
) -> LoopState:
    """Run ``phase`` from ``state`` to its end and load its best weights.

    ``on_epoch`` may extend the epoch's record, the newest of ``state.history``. ``checkpoint`` is
    called after every epoch, when ``state`` and the phase agree; then ``on_saved``, with the
    record. Early stopping follows RecBole: a
    tie is an improvement, and training stops when more than ``stopping_step`` validations in a row
    bring none. Unlike RecBole's, the last epoch is always validated.

    Raises:
        UserError: training has diverged.
    """
    total = sum(phase.steps(epoch) for epoch in range(phase.epochs))
    done = sum(phase.steps(epoch) for epoch in range(state.epoch))
    with progress_bar(phase.name, total=total, done=done, unit="step", show=show_progress) as bar:
        while not state.finished and state.epoch < phase.epochs:
            _run_epoch(phase, state, bar)
            if on_epoch is not None:
                on_epoch(state.history[-1])
            checkpoint()
            if on_saved is not None:
                on_saved(state.history[-1])
    if not state.finished:
        state.finished = True
        checkpoint()
    phase.load_best()
    return state


def _run_epoch(phase: Phase, state: LoopState, bar: tqdm[Any]) -> None:
    epoch, start = state.epoch, time.perf_counter()
    terms = _train(phase, state, bar)
    trim_memory()
    trained = time.perf_counter()
    seconds = {"train": trained - start}
    record = {"phase": phase.name, "epoch": epoch, "terms": terms, "seconds": seconds}
    if phase.eval_step <= 0:
        _judge(phase, state, Validation(None, {}))
    elif (epoch + 1) % phase.eval_step == 0 or epoch + 1 == phase.epochs:
        validation = group.same(phase.validate(epoch))
        trim_memory()
        record["valid"], record["score"] = dict(validation.metrics), validation.score
        seconds["valid"] = time.perf_counter() - trained
        _judge(phase, state, validation)
    state.seconds += time.perf_counter() - start
    state.history.append(record)
    state.epoch += 1
    state.finished = state.bad_evaluations > phase.stopping_step


def _train(phase: Phase, state: LoopState, bar: tqdm[Any]) -> dict[str, float]:
    """Train one epoch; return the mean of each loss term, and the epoch's statistics."""
    epoch, means = state.epoch, TermMeans()
    best = f" best {state.best_score:.4f}" if state.best_epoch >= 0 else ""

    def on_step(terms: Mapping[str, torch.Tensor]) -> None:
        means.add(terms)
        bar.update()
        if means.steps % _SHOW_EVERY == 0 and (group.running() or not bar.disable):
            bar.set_postfix_str(f"epoch {epoch} loss {means.means()[phase.objective]:.4f}{best}")

    phase.train_epoch(epoch, on_step)
    losses = means.means()
    if math.isnan(losses[phase.objective]):
        raise phase.diverged(f"the training loss of {phase.name} epoch {epoch} is nan")
    return {**losses, **phase.end_epoch(epoch)}


def _judge(phase: Phase, state: LoopState, validation: Validation) -> None:
    """Keep the weights if they are the best so far; count the evaluations that were not."""
    score = validation.score
    if score is not None and math.isnan(score):
        raise phase.diverged(f"the validation score of {phase.name} epoch {state.epoch} is nan")
    if score is None or score >= state.best_score:
        state.best_score = -math.inf if score is None else score
        state.best_epoch, state.best_metrics = state.epoch, dict(validation.metrics)
        state.bad_evaluations = 0
        phase.keep_best()
    else:
        state.bad_evaluations += 1
