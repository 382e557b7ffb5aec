"""The epoch loop that both phases share: train, validate, keep the best, checkpoint, stop.

The loop knows nothing of networks or data; a phase tells it what an epoch is.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Generator
from dataclasses import asdict, dataclass, field
from typing import Any, Callable, Optional

from tqdm import tqdm

from recbole_bbqrec.runtime import trim_memory
from recbole_bbqrec.trainer.phases.diverged import diverged
from recbole_bbqrec.trainer.phases.progress import progress_bar


@dataclass(frozen=True)
class Validation:
    """What a phase says of its present state.

    ``score``: larger is better; None where the phase has no validation signal, and then the last
    epoch counts as the best. ``metrics``: what is logged.
    """

    score: float | None
    metrics: dict[str, float]


@dataclass
class LoopState:
    """Everything the loop itself needs in order to go on after an interruption."""

    epoch: int = 0  # epochs finished
    best_score: float = -math.inf
    best_epoch: int = -1
    best_metrics: dict[str, float] = field(default_factory=dict)
    bad_evaluations: int = 0
    seconds: float = 0.0
    finished: bool = False
    history: list[dict[str, Any]] = field(default_factory=list)  # as in run_files/epochs.py

    def to_plain(self) -> dict[str, Any]:
        return asdict(self)


#: What :meth:`Phase.train_epoch` is: steps, then the epoch's mean terms.
Steps = Generator[Optional[dict[str, float]], None, dict[str, float]]


class Phase(ABC):
    """One trainable stage."""

    name: str
    epochs: int
    eval_step: int
    stopping_step: int
    learning_rate: float
    rate_option = "learning_rate"  # the option that says so
    optimizer: Any = None

    @abstractmethod
    def train_epoch(self, epoch: int) -> Steps:
        """Train one epoch, yielding once a step (None, or terms for the progress bar).

        The generator's return value is the epoch's mean loss terms.
        """

    @abstractmethod
    def steps(self, epoch: int) -> int:
        """Number of steps of an epoch."""

    @abstractmethod
    def validate(self, epoch: int) -> Validation: ...

    @abstractmethod
    def keep_best(self) -> None:
        """Remember (and write) the present weights as the best."""

    @abstractmethod
    def load_best(self) -> None: ...

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Weights, optimizers, counters: all that training changes."""

    @abstractmethod
    def load_state(self, state: dict[str, Any]) -> None: ...


def run_phase(
    phase: Phase,
    state: LoopState,
    checkpoint: Callable[[], None],
    *,
    show_progress: bool,
    on_epoch: Callable[[int, float | None], None] | None = None,
) -> LoopState:
    """Run ``phase`` from where ``state`` stands to its end and leave it with its best weights.

    ``checkpoint`` is called after every epoch, when ``state`` and the phase agree.
    Early stopping follows RecBole: a tie counts as an improvement, and training stops when more
    than ``stopping_step`` validations in a row bring none. The last epoch is always validated.

    Raises:
        UserError: training has diverged.
    """
    total = sum(phase.steps(epoch) for epoch in range(phase.epochs))
    done = sum(phase.steps(epoch) for epoch in range(state.epoch))
    with progress_bar(phase.name, total=total, done=done, unit="step", show=show_progress) as bar:
        while not state.finished and state.epoch < phase.epochs:
            _one_epoch(phase, state, bar)
            if on_epoch is not None:
                on_epoch(state.epoch - 1, state.history[-1].get("score"))
            checkpoint()
    if not state.finished:
        state.finished = True
        checkpoint()
    phase.load_best()
    return state


def _one_epoch(phase: Phase, state: LoopState, bar: tqdm[Any]) -> None:
    epoch, start = state.epoch, time.perf_counter()
    record: dict[str, Any] = {"phase": phase.name, "epoch": epoch}
    record["terms"] = _train(phase, epoch, state, bar)
    trim_memory()
    record["seconds"] = {"train": time.perf_counter() - start}
    due = phase.eval_step > 0 and (epoch + 1) % phase.eval_step == 0
    evaluates = due or (phase.eval_step > 0 and epoch + 1 == phase.epochs)
    if evaluates:
        validation = phase.validate(epoch)
        trim_memory()
        record["valid"] = dict(validation.metrics)
        record["score"] = validation.score
        record["seconds"]["valid"] = time.perf_counter() - start - record["seconds"]["train"]
        _judge(phase, state, epoch, validation)
    elif phase.eval_step <= 0:
        _judge(phase, state, epoch, Validation(None, {}))
    state.seconds += time.perf_counter() - start
    state.history.append(record)
    state.epoch = epoch + 1
    if state.bad_evaluations > phase.stopping_step:
        state.finished = True


def _train(phase: Phase, epoch: int, state: LoopState, bar: tqdm[Any]) -> dict[str, float]:
    steps = phase.train_epoch(epoch)
    while True:
        try:
            shown = next(steps)
        except StopIteration as end:
            return dict(end.value)
        bar.update()
        if shown:
            best = f" best {state.best_score:.4f}" if state.best_epoch >= 0 else ""
            terms = " ".join(f"{name} {value:.4f}" for name, value in shown.items())
            bar.set_postfix_str(f"epoch {epoch} {terms}{best}")


def _judge(phase: Phase, state: LoopState, epoch: int, validation: Validation) -> None:
    """Keep the weights if they are the best so far; count the evaluations that were not."""
    score = validation.score
    if score is not None and math.isnan(score):
        what = f"the validation score of {phase.name} epoch {epoch} is nan"
        raise diverged(what, phase.rate_option, phase.learning_rate)
    if score is None or score >= state.best_score:
        state.best_score = -math.inf if score is None else score
        state.best_epoch, state.best_metrics = epoch, dict(validation.metrics)
        state.bad_evaluations = 0
        phase.keep_best()
    else:
        state.bad_evaluations += 1
