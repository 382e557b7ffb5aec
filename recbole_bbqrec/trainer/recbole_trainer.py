"""RecBole's own trainers with checkpoints that are data, exact resumption and one progress bar.

Training itself is RecBole's code, unchanged: a model trained here has the metrics of RecBole's own
run, bit for bit on CPU.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial, wraps
from logging import getLogger
from typing import Any, Callable

import numpy as np
import torch
from recbole.trainer import Trainer
from tqdm import tqdm

from recbole_bbqrec.atomic import writing
from recbole_bbqrec.data.identity import check_same_data
from recbole_bbqrec.distributed.group import is_main, running
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.metrics.collector import ScoresCollector
from recbole_bbqrec.model.registry import spec
from recbole_bbqrec.protocols import RunConfig
from recbole_bbqrec.run_files.checkpoint import (
    load_checkpoint,
    load_weights,
    random_state,
    reading_checkpoint,
    require_keys,
    save_checkpoint,
    set_random_state,
)
from recbole_bbqrec.run_files.epochs import Line, read_epochs, write_epochs
from recbole_bbqrec.run_files.names import RunFiles
from recbole_bbqrec.runtime import peak_memory_mib, trim_memory
from recbole_bbqrec.trainer.mlflow_log import MlflowLog
from recbole_bbqrec.trainer.phases.loop import diverged
from recbole_bbqrec.trainer.phases.nan_check import NanCheck, watched
from recbole_bbqrec.trainer.phases.progress import HeldLog, progress_bar
from recbole_bbqrec.trainer.shared_work import SharedEpochs, no_tensorboard, own_batches
from recbole_bbqrec.trainer.smaller_batches import with_room
from recbole_bbqrec.trainer.wandb_start import starting_wandb


def says_what_is_saved(fit: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a trainer's ``fit``: an interrupt says how much of the run is saved."""

    @wraps(fit)
    def wrapped(self: SafeCheckpoints, *args: Any, **kwargs: Any) -> Any:
        try:
            return fit(self, *args, **kwargs)
        except KeyboardInterrupt:
            files = self.files
            if files is None or not files.resume.is_file():
                message = "no epoch had ended, so that nothing is saved."
            else:
                epochs = len(read_epochs(files.epochs))
                message = (
                    f"saved: {epochs} epoch{'s' if epochs != 1 else ''}, in {files.directory}. Run "
                    "the same command with --resume=auto to go on."
                )
            raise KeyboardInterrupt(message) from None

    return wrapped


class SafeCheckpoints(SharedEpochs):
    """Mixin over a RecBole trainer class; see :func:`with_safe_checkpoints`."""

    logger: Any  # RecBole's, or within `fit` one that holds lines back
    files: RunFiles | None = None
    mlflow: MlflowLog | None = None
    split_hash: str = ""
    features: dict[str, Any] = {}  # fingerprint of each modality's features
    seconds_before = 0.0  # training time of the processes that this one continues
    loss_is_mean = False  # True: _train_epoch returns the mean over the steps; RecBole's: the sum
    last_rate: float | None = None  # learning rate of the latest step, where it changes
    _started = 0.0  # when this process began to train
    _bar: tqdm[Any] | None = None
    _validates = False  # True: the training has validations
    _pending: dict[str, Any] | None = None  # state to restore when the first epoch starts
    _resumed: Any = None  # the file that it comes from

    def __init__(self, config: RunConfig, model: Any) -> None:
        tensorboard = no_tensorboard(unless=is_main())
        with writing("log_tensorboard"), tensorboard, starting_wandb(config):
            super().__init__(config, model)
        self.eval_collector = ScoresCollector(config)
        self.epoch_lines: list[Line] = []
        self._log = HeldLog(self.logger)

    def use_data(self, identity: Mapping[str, Any]) -> None:
        """Name the data in checkpoints; ``identity`` comes from ``data.identity``."""
        self.split_hash, self.features = identity["split_hash"], identity["features"]

    def use_files(self, files: RunFiles) -> None:
        """Write to the paths of ``files``."""
        self.files = files
        self.saved_model_file = str(files.model)

    # checkpoints ----------------------------------------------------------------------------

    def _identity(self) -> dict[str, Any]:
        """Return what a checkpoint tells of its run."""
        return {
            "config": self.config.to_text(),
            "model": self.config["model"],
            "split_hash": self.split_hash,
            "features": self.features,
        }

    def _state(self) -> dict[str, Any]:
        return {
            **self._identity(),
            "state_dict": self.model.state_dict(),
            "other_parameter": _without_modules(self.model.other_parameter()),
        }

    def _save_checkpoint(self, epoch: int, verbose: bool = True, **kwargs: Any) -> None:
        path = kwargs.pop("saved_model_file", self.saved_model_file)
        save_checkpoint({**self._state(), "epoch": epoch}, path)
        if verbose:
            self.logger.info(f"Saving current best: {path}")

    def load_model_file(self, path: str) -> None:
        """Load the weights of a model checkpoint.

        Raises:
            UserError: unreadable, written by another model, or of other shapes.
        """
        state = load_checkpoint(path, self.device)
        require_keys(state, ["model", "state_dict"], path)
        fitting = [self.config["model"]]
        trained_as = spec(self.config["model"]).trained_as
        if trained_as is not None:
            fitting.append(trained_as)
        if state.get("model") not in fitting:
            raise UserError(
                f"The checkpoint {path} holds a {state.get('model')} model; this run is "
                f"{self.config['model']}."
            )
        load_weights(self.model, state["state_dict"], path)
        with reading_checkpoint(path):
            self.model.load_other_parameter(state.get("other_parameter"))

    def resume_checkpoint(self, resume_file: Any) -> None:
        """Continue an interrupted run from its ``resume.pth``.

        Raises:
            UserError: unreadable, or written for other data.
        """
        with reading_checkpoint(resume_file):
            state = self._load_resume(resume_file)
            load_weights(self.model, state["state_dict"], resume_file)
            self.model.load_other_parameter(state.get("other_parameter"))
            self.optimizer.load_state_dict(state["optimizer"])
            self.start_epoch, self.cur_step = state["epoch"], state["cur_step"]
            self.best_valid_score = state["best_valid_score"]
            self.best_valid_result = state["best_valid_result"]
            self.epoch_lines = state.get("epochs", [])
            self.seconds_before = state.get("seconds", 0.0)
            self._pending = {key: state[key] for key in ("shuffle", "random")}
            self._resumed = resume_file
        self.logger.info(f"Resuming {resume_file} at epoch {self.start_epoch}")

    def _load_resume(self, path: Any) -> dict[str, Any]:
        state = load_checkpoint(path, self.device)
        check_same_data(
            state, self._identity(), path, self.config, "start a new run without `resume`"
        )
        return state

    def _save_resume(self, epochs_done: int, train_data: Any) -> None:
        """Write all that the run needs to continue after ``epochs_done`` epochs."""
        if self.files is None:
            return
        best = self.best_valid_result
        state = {
            **self._state(),
            "epoch": epochs_done,
            "cur_step": self.cur_step,
            "best_valid_score": float(self.best_valid_score),
            "best_valid_result": None if best is None else {k: float(v) for k, v in best.items()},
            "optimizer": self.optimizer.state_dict(),
            "random": random_state(),
            "shuffle": train_data.generator.get_state(),
            "epochs": self.epoch_lines,
            "seconds": self.seconds_before + time.perf_counter() - self._started,
        }
        save_checkpoint(state, self.files.resume)
        self._write_epochs()

    def _write_epochs(self) -> None:
        if self.files is not None:
            write_epochs(self.epoch_lines, self.files.epochs)
        if self.mlflow is not None:
            self.mlflow.add_epochs(self.epoch_lines)

    # RecBole's hooks ------------------------------------------------------------------------

    @says_what_is_saved
    def fit(
        self,
        train_data: Any,
        valid_data: Any = None,
        verbose: bool = True,
        saved: bool = True,
        show_progress: bool = False,
        callback_fn: Any = None,
    ) -> tuple[float, Any]:
        """Train as RecBole does, and save the state at the end of every epoch."""
        self._started = time.perf_counter()
        self._validates = bool(valid_data) and self.eval_step > 0
        if self._has_finished():  # an interrupted run whose best model is written
            self.eval_collector.data_collect(train_data)
            return self.best_valid_score, self.best_valid_result

        def end_epoch(epoch: int, score: float) -> None:
            self._save_resume(epoch + 1, train_data)
            self._log.release()
            if callback_fn:
                callback_fn(epoch, score)

        with progress_bar(
            "train", total=self.epochs, done=self.start_epoch, unit="epoch", show=show_progress
        ) as self._bar:
            self.logger = self._log
            try:
                fitted = super().fit(train_data, valid_data, verbose, saved, False, end_epoch)
            finally:
                self.logger = getLogger()
        self._write_epochs()
        return fitted

    def _has_finished(self) -> bool:
        """Return True if a resumed run has nothing left to train or to write.

        Without validation RecBole writes the model after the state: then it does so again.
        """
        out_of_patience = self.cur_step > self.stopping_step
        done = 0 < self.epochs <= self.start_epoch or out_of_patience
        return done and self._validates

    def _train_epoch(
        self,
        train_data: Any,
        epoch_idx: int,
        loss_func: Any = None,
        show_progress: bool = False,
    ) -> Any:
        if self._pending is not None:
            with reading_checkpoint(self._resumed):
                train_data.generator.set_state(self._pending["shuffle"].cpu())
                set_random_state(self._pending["random"])
            self._pending = None
        self._log.hold(self._validates and (epoch_idx + 1) % self.eval_step == 0)
        start = time.perf_counter()
        check = NanCheck(self.files, "train", self.device)
        error = partial(diverged, "the training loss is nan", self.learning_rate, "learning_rate")
        loss_of = watched(loss_func or self._loss_function(), check, self.model, epoch_idx, error)
        loss = super()._train_epoch(train_data, epoch_idx, loss_of, show_progress)
        trim_memory()
        steps = 1 if self.loss_is_mean else max(1, len(train_data))
        line = {"phase": "train", "epoch": epoch_idx, "terms": _terms(loss, steps)}
        constant = self.optimizer.param_groups[0]["lr"]
        line["learning_rate"] = constant if self.last_rate is None else self.last_rate
        line["seconds"] = {"train": time.perf_counter() - start}
        line["peak_memory_mib"] = peak_memory_mib(self.device)
        self.epoch_lines.append(line)
        if self._bar is not None:
            total = sum(loss) if isinstance(loss, tuple) else loss
            self._bar.update()
            self._bar.set_postfix_str(f"loss {total:.4f} best {self._best()}")
        if not self._validates or (epoch_idx + 1) % self.eval_step:  # else fit's end_epoch saves
            self._save_resume(epoch_idx + 1, train_data)
        return loss

    def _loss_function(self) -> Callable[[Any], Any]:
        """Return what RecBole's loop takes for the loss of a batch."""
        calculate: Callable[[Any], Any] = self.model.calculate_loss
        return calculate

    def _check_nan(self, loss: torch.Tensor) -> None:
        if torch.isnan(loss):
            raise diverged("the training loss is nan", self.learning_rate)

    def _valid_epoch(self, valid_data: Any, show_progress: bool = False) -> Any:
        start = time.perf_counter()
        score, result = super()._valid_epoch(valid_data, show_progress)
        trim_memory()
        if self.epoch_lines:  # empty if a caller validates without training
            line = self.epoch_lines[-1]
            line["valid"] = {name: float(value) for name, value in result.items()}
            line["seconds"]["valid"] = time.perf_counter() - start
        return score, result

    def _best(self) -> str:
        known = np.isfinite(self.best_valid_score)
        return f"{self.valid_metric} {self.best_valid_score:.4f}" if known else "-"

    @torch.no_grad()
    def evaluate(
        self,
        eval_data: Any,
        load_best_model: bool = True,
        model_file: Any = None,
        show_progress: bool = False,
    ) -> Any:
        if load_best_model and eval_data:
            path = str(model_file or self.saved_model_file)
            self.load_model_file(path)
            self.logger.info(f"Loading model parameters from {path}")
        evaluate = partial(super().evaluate, own_batches(eval_data), False, None, show_progress)
        if not eval_data or running():  # several processes must agree on the batches
            return evaluate()
        return with_room(evaluate, eval_data, self.eval_collector)

    def _full_sort_batch_eval(self, batched_data: Any) -> Any:
        interaction, scores, positive_u, positive_i = super()._full_sort_batch_eval(batched_data)
        if self.config["mask_history"]:
            history = interaction[self.config["ITEM_ID_FIELD"] + self.config["LIST_SUFFIX"]]
            scores.scatter_(1, history.to(scores.device), -np.inf)
        return interaction, scores, positive_u, positive_i


def _without_modules(parameters: Any) -> Any:
    """Drop the modules from RecBole's other parameters: the state dict has their weights."""
    if parameters is None:
        return None
    return {k: v for k, v in parameters.items() if not isinstance(v, torch.nn.Module)}


def _terms(loss: Any, steps: int) -> dict[str, float]:
    """Turn RecBole's epoch loss, a sum or a tuple of sums, into means over the steps."""
    if not isinstance(loss, tuple):
        return {"loss": float(loss) / steps}
    parts = {f"loss_{number}": float(part) / steps for number, part in enumerate(loss, start=1)}
    return {"loss": sum(parts.values()), **parts}


def with_safe_checkpoints(trainer: type[Trainer]) -> type[SafeCheckpoints]:
    """Return the RecBole trainer class with :class:`SafeCheckpoints` mixed in."""
    if trainer is Trainer:
        return SafeCheckpoints
    return type(f"Safe{trainer.__name__}", (SafeCheckpoints, trainer), {})
