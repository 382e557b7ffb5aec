"""Jobs of ``evaluate``: finished runs with new options, checked before any work starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.experiment.evaluate.options import (
    OF_THE_RANKING,
    check_used,
    is_used_by,
    model_to_rank_with,
    own_options,
)
from recbole_bbqrec.experiment.store.run_key import INPUT_FILES, counted_options, digest
from recbole_bbqrec.metrics.collector import RankedCollector
from recbole_bbqrec.model.registry import spec
from recbole_bbqrec.run_files.checkpoint import load_checkpoint
from recbole_bbqrec.run_files.finished_run import FinishedRun
from recbole_bbqrec.run_files.kept_data import own_data

#: Options in which runs of one configuration may differ, besides those of ``NOT_IN_KEY``.
_NOT_IN_CONFIGURATION = ("seed", "topk", "metrics", "eval_batch_size")


@dataclass(frozen=True)
class Job:
    """One run to evaluate.

    Attributes:
        path: the run, as the user gave it.
        finished: its files and its result.
        config: its configuration with the new options.
        changed: the new options whose value differs from the run's own.
        label: the model's name; with a number if one model has several configurations.
    """

    path: Path
    finished: FinishedRun
    config: BBQRecConfig
    changed: dict[str, Any]
    label: str

    @property
    def model(self) -> str:
        return str(self.config["model"])

    @property
    def dataset(self) -> str:
        return str(self.finished.result["dataset"])

    @property
    def seed(self) -> int:
        return int(self.finished.result["seed"])

    @property
    def split_hash(self) -> str:
        return str(self.finished.result["split_hash"])

    @property
    def same_ranking(self) -> bool:
        """True if the model ranks as it did in the run, so its metrics should be the same."""
        return not any(key in self.changed for key in OF_THE_RANKING)

    @property
    def name(self) -> str:
        return f"{self.label} on {self.dataset}, seed {self.seed}"


def find_jobs(paths: Sequence[Path], values: Mapping[str, Any], split: str) -> list[Job]:
    """Return the runs at ``paths`` with the options ``values``, which :mod:`.options` has checked.

    Raises:
        UserError: a run is missing, unfinished or damaged, no run's model reads an option, or two
            runs on one data set are not comparable.
    """
    finished = [FinishedRun.at(path) for path in paths]
    check_used(values, [run.result["model"] for run in finished])
    jobs = [_job(path, run, values) for path, run in zip(paths, finished)]
    for job in jobs:
        mode = job.config["eval_args"]["mode"][split]
        if mode != "full":
            raise UserError(
                f"The run at {job.path} was evaluated with mode {mode} of `eval_args`, on items "
                "that are sampled anew each time; `evaluate` needs `mode: full`."
            )
        if spec(job.model).two_phase:
            RankedCollector(job.config)  # refuses metrics that need the scores of all items
    for other in jobs:
        _check_alike(other, next(job for job in jobs if job.dataset == other.dataset))
    return _labelled(jobs)


def differing_options(job: Job, other: Job) -> list[str]:
    """Return the names of the options in which the configurations of two jobs differ."""
    first, second = _configuration(job, files=True), _configuration(other, files=True)
    return sorted(key for key in {*first, *second} if first.get(key) != second.get(key))


# helpers --------------------------------------------------------------------------------------


def _job(path: Path, finished: FinishedRun, values: Mapping[str, Any]) -> Job:
    state = load_checkpoint(finished.files.model)
    if not isinstance(state.get("config"), str) or "state_dict" not in state:
        raise UserError(f"The file {finished.files.model} is not the saved model of a run.")
    # RecBole's trainer makes its output folder and starts wandb when it is constructed.
    quiet = {"checkpoint_dir": str(finished.files.model.parent), "log_wandb": False}
    own = BBQRecConfig.from_text(state["config"])
    model = model_to_rank_with(own["model"], values)
    used = {key: value for key, value in values.items() if is_used_by(model, key)}
    used["model"] = model
    added = {} if model == own["model"] else own_options(model, own["dataset"])
    data = own_data(finished.files, used)
    config = BBQRecConfig.from_text(state["config"], {**data, **added, **used, **quiet})
    changed = {key: config[key] for key in used if config[key] != own[key]}
    return Job(path, finished, config, changed, model)


def _check_alike(job: Job, first: Job) -> None:
    """Raise a UserError unless two jobs have the same split and treat the history alike."""
    protocol = [
        ("the split of the data", job.split_hash, first.split_hash, "Evaluate them separately."),
        (
            "`mask_history`",
            job.config["mask_history"],
            first.config["mask_history"],
            "Set --mask_history=True or False for both.",
        ),
        (
            "`MAX_ITEM_LIST_LENGTH`, the number of last items that are masked,",
            job.config["mask_history"] and job.config["MAX_ITEM_LIST_LENGTH"],
            first.config["mask_history"] and first.config["MAX_ITEM_LIST_LENGTH"],
            "Evaluate them separately, or without --mask_history.",
        ),
    ]
    for what, value, expected, remedy in protocol:
        if value != expected:
            raise UserError(
                f"The runs at {first.path} and {job.path}, both on {job.dataset}, cannot be "
                f"compared: {what} is {expected} for the first and {value} for the second. {remedy}"
            )


def _labelled(jobs: Sequence[Job]) -> list[Job]:
    """Number the configurations of one model, so that only seeds are averaged.

    Semantic IDs given by ``tokenizer_path`` count as part of the seed, unless two runs of one seed
    differ in nothing else.
    """
    labels: dict[int, str] = {}
    groups: dict[tuple[str, str], list[int]] = {}
    for index, job in enumerate(jobs):
        groups.setdefault((job.dataset, job.model), []).append(index)
    for (_, model), members in groups.items():
        keys = [digest(_configuration(jobs[i], files=False)) for i in members]
        if _duplicates(jobs, members, keys):
            keys = [digest(_configuration(jobs[i], files=True)) for i in members]
        pair = _duplicates(jobs, members, keys)
        if pair:
            raise UserError(
                f"The runs at {pair[0].path} and {pair[1].path} are both {pair[0].name}, with the "
                "same configuration. Remove one of them."
            )
        order = list(dict.fromkeys(keys))
        for index, key in zip(members, keys):
            number = order.index(key) + 1
            labels[index] = f"{model} ({number})" if len(order) > 1 else model
    return [replace(job, label=labels[index]) for index, job in enumerate(jobs)]


def _duplicates(jobs: Sequence[Job], members: Sequence[int], keys: Sequence[str]) -> list[Job]:
    """Return two jobs of one configuration and seed, or none."""
    seen: dict[tuple[str, int], Job] = {}
    for index, key in zip(members, keys):
        other = seen.setdefault((key, jobs[index].seed), jobs[index])
        if other is not jobs[index]:
            return [other, jobs[index]]
    return []


def _configuration(job: Job, files: bool) -> dict[str, Any]:
    """Return the options of the model and its ranking, with the names of input files or without."""
    resolved = job.config.resolved
    names = {key: resolved.get(key) for key in INPUT_FILES if files}
    counted = counted_options({**resolved, **dict.fromkeys(INPUT_FILES)})
    kept = {key: value for key, value in counted.items() if key not in _NOT_IN_CONFIGURATION}
    return {**kept, **names}
