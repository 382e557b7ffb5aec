"""Evaluation of one saved model on one split by its trainer."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from recbole_bbqrec.data.identity import check_same_data
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.experiment.evaluate.jobs import Job
from recbole_bbqrec.prepare.on_demand import check_files
from recbole_bbqrec.protocols import RunConfig
from recbole_bbqrec.quick_start import Prepared, build_model, prepare
from recbole_bbqrec.run_files.per_user import PerUser, recorded
from recbole_bbqrec.runtime import prepare_process
from recbole_bbqrec.trainer.registry import get_trainer_class
from recbole_bbqrec.trainer.shared_work import no_tensorboard

SPLITS = {"valid": "best_valid_result", "test": "test_result"}  # split -> key of result.json


@dataclass(frozen=True)
class Evaluation:
    """The result of one job; a ``Tested`` of :mod:`recbole_bbqrec.experiment.comparison.paired`.

    Attributes:
        job: the run that was evaluated.
        metrics: rounded to ``metric_decimal_place``, as the run reports them.
        users: the metrics of every user; None if they have no value per user.
        seconds: time of ranking and measuring, without loading.
        by_target: metrics by groups of targets, of :func:`recbole_bbqrec.metrics.groups.by_group`.
        protocol: that of the split.
    """

    job: Job
    metrics: Mapping[str, float]
    users: PerUser | None
    seconds: float
    by_target: Mapping[str, Any]
    protocol: str

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
    """Load the job's data and best model, and evaluate it on ``split``; see the other function."""
    return evaluate_splits(job, [split])[0]


def evaluate_splits(job: Job, splits: Sequence[str]) -> list[Evaluation]:
    """Load the job's data and best model, and evaluate it on ``splits``, keys of :data:`SPLITS`.

    Raises:
        UserError: the data is missing or not that of the run, the split is empty, or `topk`
            exceeds the number of items.
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
        data = [_split_of(prepared, split, job) for split in splits]
        trainer = _trainer(config, build_model(config, prepared.train_data))
        trainer.load_model_file(str(job.finished.files.model))
        trainer.eval_collector.data_collect(prepared.train_data)
        return [_evaluate(job, prepared, trainer, each) for each in data]
    finally:
        torch.set_num_threads(threads)  # the next job may set no number of its own


def _split_of(prepared: Prepared, split: str, job: Job) -> Any:
    data = prepared.valid_data if split == "valid" else prepared.test_data
    if not data:
        raise UserError(
            f"The run at {job.path} has no {split} split: its `eval_args` is "
            f"{job.config['eval_args']}. Evaluate the other split, with --split."
        )
    return data


def _evaluate(job: Job, prepared: Prepared, trainer: Any, data: Any) -> Evaluation:
    start = time.perf_counter()
    with recorded(trainer) as recorder:
        metrics = trainer.evaluate(data, load_best_model=False)
    seconds = time.perf_counter() - start
    targets = prepared.describe_targets(data)
    users = recorder.per_user(data._dataset, prepared.split_hash, targets)
    by_target = recorder.by_target(targets)
    values = {k: float(v) for k, v in metrics.items()}
    return Evaluation(job, values, users, seconds, by_target, prepared.split["protocol"])


def _trainer(config: RunConfig, model: Any) -> Any:
    with no_tensorboard():
        return get_trainer_class(config["model"])(config, model)
