"""One saved model on one split, through the trainer's own evaluation."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from recbole.trainer import trainer as recbole_trainer

from recbole_bbqrec.data.identity import check_same_data
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.experiment.evaluate.jobs import Job
from recbole_bbqrec.prepare.on_demand import check_files
from recbole_bbqrec.protocols import RunConfig
from recbole_bbqrec.quick_start import build_model, prepare
from recbole_bbqrec.run_files.per_user import PerUser, recorded
from recbole_bbqrec.runtime import prepare_process
from recbole_bbqrec.trainer.registry import get_trainer_class

SPLITS = {"valid": "best_valid_result", "test": "test_result"}  # and their names in result.json


@dataclass(frozen=True)
class Evaluation:
    """What one job came to; a ``Tested`` of :mod:`recbole_bbqrec.experiment.comparison.paired`.

    Attributes:
        job: what was evaluated.
        metrics: as the run would have reported them, rounded to ``metric_decimal_place``.
        users: the same of every user; None where the metrics have no value a user.
        seconds: of ranking and measuring, without loading.
    """

    job: Job
    metrics: Mapping[str, float]
    users: PerUser | None
    seconds: float

    @property
    def model(self) -> str:
        return self.job.label

    @property
    def dataset(self) -> str:
        return self.job.dataset

    @property
    def seed(self) -> int:
        return self.job.seed

    @property
    def split_hash(self) -> str:
        return self.job.split_hash

    @property
    def log(self) -> Path:
        return self.job.finished.files.directory


def evaluate(job: Job, split: str) -> Evaluation:
    """Load the job's data and best model, and evaluate it on ``split``, a key of :data:`SPLITS`.

    Raises:
        UserError: the data are missing or not those of the run, the split is empty, or `topk` is
            more than the items.
    """
    config, threads = job.config, torch.get_num_threads()
    try:
        prepare_process(
            allocator=config["tune_allocator"],
            num_threads=config["num_threads"],
            reproducible=config["reproducibility"],
            device=config["device"],
        )
        check_files(config)
        prepared = prepare(config)
        check_same_data(job.finished.result, prepared.identity, job.path, job.config)
        data = prepared.valid_data if split == "valid" else prepared.test_data
        if not data:
            raise UserError(
                f"The run at {job.path} has no {split} split: its `eval_args` is "
                f"{config['eval_args']}. Evaluate it on the other, with --split."
            )
        trainer = _trainer(config, build_model(config, prepared.train_data))
        trainer.load_model_file(str(job.finished.files.model))
        trainer.eval_collector.data_collect(prepared.train_data)
        start = time.perf_counter()
        with recorded(trainer) as recorder:
            metrics = trainer.evaluate(data, load_best_model=False)
        seconds = time.perf_counter() - start
    finally:
        torch.set_num_threads(threads)  # the next run has its own number, or the machine's
    users = recorder.per_user(data._dataset, prepared.split_hash)
    return Evaluation(job, {k: float(v) for k, v in metrics.items()}, users, seconds)


def _trainer(config: RunConfig, model: Any) -> Any:
    with _no_tensorboard():
        return get_trainer_class(config["model"])(config, model)


@contextmanager
def _no_tensorboard() -> Iterator[None]:
    """RecBole's trainer opens an event file when it is made; an evaluation has none to write."""
    usual = recbole_trainer.get_tensorboard
    recbole_trainer.get_tensorboard = lambda logger: None
    try:
        yield
    finally:
        recbole_trainer.get_tensorboard = usual
