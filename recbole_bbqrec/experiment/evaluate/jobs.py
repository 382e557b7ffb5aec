"""What a command evaluates: finished runs with their new options, checked before work starts."""

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

#: Options that runs of one configuration may differ in, beside those without part in a run.
_NO_PART_IN_THE_MODEL = ("seed", "topk", "metrics", "eval_batch_size")


@dataclass(frozen=True)
class Job:
    """One run to evaluate.

    Attributes:
        path: the run, as it was given.
        finished: its files and its result.
        config: its configuration with the new options.
        changed: those of the new options whose value differs from the run's own.
        label: the model's name; with a number where one model has several configurations.
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
        """Whether the model ranks as it did in the run, so that its metrics must come out again."""
        return not any(key in self.changed for key in OF_THE_RANKING)

    @property
    def name(self) -> str:
        return f"{self.label} on {self.dataset}, seed {self.seed}"


def find_jobs(paths: Sequence[Path], values: Mapping[str, Any], split: str) -> list[Job]:
    """The runs at ``paths`` with the options ``values``, which :mod:`.options` has checked.

    Raises:
        UserError: a run is not there, not finished or damaged, an option does not fit its model,
            or two runs on one data set would not be evaluated alike.
    """
    finished = [FinishedRun.at(path) for path in paths]
    check_used(values, [run.result["model"] for run in finished])
    jobs = [_job(path, run, values) for path, run in zip(paths, finished)]
    for job in jobs:
        mode = job.config["eval_args"]["mode"][split]
        if mode != "full":
            raise UserError(
                f"The run at {job.path} was evaluated with mode {mode} of `eval_args`, on sampled "
                "items, which are drawn anew each time; `evaluate` needs `mode: full`."
            )
        if spec(job.model).two_phase:
            RankedCollector(job.config)  # refuses metrics that a ranking alone does not give
    for other in jobs:
        _check_alike(other, next(job for job in jobs if job.dataset == other.dataset))
    return _labelled(jobs)


def differing_options(job: Job, other: Job) -> list[str]:
    """Names of the options that make two jobs two configurations."""
    one, two = _configuration(job, files=True), _configuration(other, files=True)
    return sorted(key for key in {*one, *two} if one.get(key) != two.get(key))


# helpers --------------------------------------------------------------------------------------


def _job(path: Path, finished: FinishedRun, values: Mapping[str, Any]) -> Job:
    state = load_checkpoint(finished.files.model)
    if not isinstance(state.get("config"), str) or "state_dict" not in state:
        raise UserError(f"The file {finished.files.model} is not the saved model of a run.")
    # Where RecBole's trainer would write, and what it would start, on being made.
    quiet = {"checkpoint_dir": str(finished.files.model.parent), "log_wandb": False}
    own = BBQRecConfig.from_text(state["config"])
    model = model_to_rank_with(own["model"], values)
    used = {key: value for key, value in values.items() if is_used_by(model, key)}
    used["model"] = model
    added = {} if model == own["model"] else own_options(model, own["dataset"])
    config = BBQRecConfig.from_text(state["config"], {**added, **used, **quiet})
    changed = {key: config[key] for key in used if config[key] != own[key]}
    return Job(path, finished, config, changed, model)


def _check_alike(job: Job, first: Job) -> None:
    """The same events must be held out, and the history treated alike."""
    told = [
        ("the split of the data", job.split_hash, first.split_hash, "Evaluate them apart."),
        (
            "`mask_history`",
            job.config["mask_history"],
            first.config["mask_history"],
            "Give --mask_history=True or False, for both.",
        ),
        (
            "`MAX_ITEM_LIST_LENGTH`, the last items that are masked,",
            job.config["mask_history"] and job.config["MAX_ITEM_LIST_LENGTH"],
            first.config["mask_history"] and first.config["MAX_ITEM_LIST_LENGTH"],
            "Evaluate them apart, or without --mask_history.",
        ),
    ]
    for what, value, wanted, remedy in told:
        if value != wanted:
            raise UserError(
                f"The runs at {first.path} and {job.path}, both on {job.dataset}, cannot be "
                f"compared: {what} is {wanted} for the one and {value} for the other. {remedy}"
            )


def _labelled(jobs: Sequence[Job]) -> list[Job]:
    """Jobs of one model told apart by configuration, so that only seeds are averaged.

    Semantic IDs made apart (``tokenizer_path``) belong to a run's seed, unless two runs of one
    seed differ in them alone.
    """
    labels: dict[int, str] = {}
    groups: dict[tuple[str, str], list[int]] = {}
    for index, job in enumerate(jobs):
        groups.setdefault((job.dataset, job.model), []).append(index)
    for (_, model), members in groups.items():
        keys = [digest(_configuration(jobs[i], files=False)) for i in members]
        if _twice(jobs, members, keys):
            keys = [digest(_configuration(jobs[i], files=True)) for i in members]
        same = _twice(jobs, members, keys)
        if same:
            raise UserError(
                f"The runs at {same[0].path} and {same[1].path} are both {same[0].name}, of the "
                "same configuration. Leave one out."
            )
        order = list(dict.fromkeys(keys))
        for index, key in zip(members, keys):
            number = order.index(key) + 1
            labels[index] = f"{model} ({number})" if len(order) > 1 else model
    return [replace(job, label=labels[index]) for index, job in enumerate(jobs)]


def _twice(jobs: Sequence[Job], members: Sequence[int], keys: Sequence[str]) -> list[Job]:
    """Two jobs of one configuration and seed, or none."""
    seen: dict[tuple[str, int], Job] = {}
    for index, key in zip(members, keys):
        other = seen.setdefault((key, jobs[index].seed), jobs[index])
        if other is not jobs[index]:
            return [other, jobs[index]]
    return []


def _configuration(job: Job, files: bool) -> dict[str, Any]:
    """The options that make up the model and its ranking; with the names of input files, or not."""
    resolved = job.config.resolved
    names = {key: resolved.get(key) for key in INPUT_FILES if files}
    counted = counted_options({**resolved, **dict.fromkeys(INPUT_FILES)})
    kept = {key: value for key, value in counted.items() if key not in _NO_PART_IN_THE_MODEL}
    return {**kept, **names}
