"""The epoch loop: early stopping as RecBole counts it, best state kept, resumption exact."""

from __future__ import annotations

import logging

import pytest
import torch
from recbole.utils import early_stopping

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.trainer.phases.loop import LoopState, Phase, Validation, run_phase
from recbole_bbqrec.trainer.phases.progress import HeldLog


class Scripted(Phase):
    """A phase whose validation scores are written down beforehand."""

    name = "scripted"
    learning_rate = 0.25

    def __init__(self, scores, eval_step=1, stopping_step=2):
        self.scores, self.epochs = scores, len(scores)
        self.eval_step, self.stopping_step = eval_step, stopping_step
        self.trained, self.kept, self.loaded, self.evaluated = [], [], 0, []

    def steps(self, epoch):
        return 2

    def train_epoch(self, epoch, on_step):
        self.trained.append(epoch)
        for step in range(2):
            on_step({"loss": torch.tensor(epoch + 2.0 * step)})

    def end_epoch(self, epoch):
        return {"utilisation": 0.5}

    def validate(self, epoch):
        self.evaluated.append(epoch)
        return Validation(self.scores[epoch], {"m": float(epoch)})

    def keep_best(self):
        self.kept.append(self.trained[-1])

    def load_best(self):
        self.loaded += 1

    def state(self):
        return {}

    def load_state(self, state):
        pass


@pytest.mark.parametrize(
    "scores",
    [
        [0.1, 0.2, 0.15, 0.2, 0.1, 0.1, 0.1, 0.9],
        [0.5, 0.4, 0.3, 0.2, 0.1],
        [0.1, 0.2, 0.3],
        [0.3, 0.3, 0.3, 0.1, 0.1, 0.3, 0.1],
    ],
)
def test_early_stopping_is_recboles(scores):
    best, bad, stop_at, kept = -float("inf"), 0, len(scores) - 1, []
    for epoch, score in enumerate(scores):
        best, bad, stop, update = early_stopping(score, best, bad, max_step=2)
        if update:
            kept.append(epoch)
        if stop:
            stop_at = epoch
            break
    phase, state = Scripted(scores), LoopState()
    run_phase(phase, state, lambda: None, show_progress=False)
    assert phase.trained == list(range(stop_at + 1))
    assert phase.kept == kept
    assert state.best_epoch == kept[-1]
    assert state.best_score == best
    assert state.finished
    assert phase.loaded == 1


def test_last_epoch_is_always_validated():
    phase = Scripted([0.1] * 7, eval_step=3, stopping_step=9)
    run_phase(phase, LoopState(), lambda: None, show_progress=False)
    assert phase.evaluated == [2, 5, 6]


def test_without_scores_the_last_epoch_is_the_best():
    phase = Scripted([None, None, None])
    state = run_phase(phase, LoopState(), lambda: None, show_progress=False)
    assert state.best_epoch == 2
    assert phase.kept == [0, 1, 2]


def test_nan_score_is_an_error():
    with pytest.raises(UserError, match="`learning_rate` is 0.25: the validation score"):
        run_phase(Scripted([float("nan")]), LoopState(), lambda: None, show_progress=False)


def test_resumes_after_the_last_checkpoint():
    class Killed(Exception):
        pass

    states = []

    def checkpoint():
        states.append(LoopState(**state.to_plain()))
        if len(states) == 3:
            raise Killed

    scores = [0.1, 0.4, 0.2, 0.3, 0.5, 0.1]
    state = LoopState()
    with pytest.raises(Killed):
        run_phase(Scripted(scores), state, checkpoint, show_progress=False)
    phase = Scripted(scores)
    resumed = run_phase(phase, states[-1], lambda: None, show_progress=False)
    assert phase.trained == [3, 4, 5]
    whole = run_phase(Scripted(scores), LoopState(), lambda: None, show_progress=False)
    assert (resumed.best_epoch, resumed.best_score) == (whole.best_epoch, whole.best_score)
    assert [r["terms"] for r in resumed.history] == [r["terms"] for r in whole.history]


def test_a_finished_phase_only_loads_its_best():
    phase = Scripted([0.1, 0.2])
    run_phase(phase, LoopState(epoch=2, finished=True), lambda: None, show_progress=False)
    assert phase.trained == []
    assert phase.loaded == 1


def test_a_record_has_means_and_statistics():
    state = run_phase(Scripted([0.1, 0.2]), LoopState(), lambda: None, show_progress=False)
    assert [record["terms"] for record in state.history] == [
        {"loss": 1.0, "utilisation": 0.5}, {"loss": 2.0, "utilisation": 0.5},
    ]  # fmt: skip


def test_nan_loss_is_an_error_before_the_epoch_ends(monkeypatch):
    phase = Scripted([0.1])
    monkeypatch.setattr(
        phase, "train_epoch", lambda epoch, on_step: on_step({"loss": torch.tensor(torch.nan)})
    )
    monkeypatch.setattr(phase, "end_epoch", None)  # a call would fail
    with pytest.raises(UserError, match="`learning_rate` is 0.25: the training loss of scripted"):
        run_phase(phase, LoopState(), lambda: None, show_progress=False)


def test_an_epoch_is_told_after_its_state_is_saved():
    seen = []
    phase, state = Scripted([0.1, 0.2]), LoopState()
    run_phase(
        phase, state, lambda: seen.append(("saved", state.epoch, state.finished)),
        show_progress=False,
        on_epoch=lambda record: seen.append(("completed", record["epoch"])),
        on_saved=lambda record: seen.append(("told", record["epoch"])),
    )  # fmt: skip
    assert seen == [
        ("completed", 0), ("saved", 1, False), ("told", 0),
        ("completed", 1), ("saved", 2, False), ("told", 1), ("saved", 2, True),
    ]  # fmt: skip


def test_a_log_may_hold_lines_back(caplog):
    caplog.set_level(logging.INFO)
    log = HeldLog(logging.getLogger())
    log.info("one")
    log.hold(True)
    log.info("two")
    log.warning("at once")
    assert caplog.messages == ["one", "at once"]
    log.release()
    log.info("three")
    log.hold(True)
    log.info("four")
    log.hold(True)  # the next epoch begins: nothing is lost
    assert caplog.messages == ["one", "at once", "two", "three", "four"]
