"""Find the run that ``--resume`` names, and check that the options agree with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recbole_bbqrec.config.config import BBQRecConfig, complete_eval_args
from recbole_bbqrec.config.values import read_yaml
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.model.registry import spec
from recbole_bbqrec.run_files.checkpoint import load_checkpoint
from recbole_bbqrec.run_files.names import RunFiles

#: Options that may differ between an interrupted run and its continuation.
FREE = {
    "resume", "show_progress", "state", "checkpoint_dir", "data_path", "gpu_id", "use_gpu",
    "num_threads", "tune_allocator", "log_wandb", "wandb_project", "prepare",
}  # fmt: skip


def run_to_continue(
    path: Path,
    model: str | type | None,
    dataset: str | None,
    config_files: Sequence[str | Path],
    overrides: dict[str, Any],
) -> tuple[BBQRecConfig, RunFiles]:
    """Return configuration and files of the run at ``path``, its directory or ``resume.pth``.

    Options given now must equal those of its start, except :data:`FREE` ones.

    Raises:
        UserError: nothing to resume there, or an option differs.
    """
    files = RunFiles.at(path)
    if not files.resume.is_file():
        raise UserError(
            f"Option `resume` is {path}; expected `auto`, a run's directory or its resume.pth, but "
            f"{files.resume} does not exist."
        )
    name = None if model is None else spec(model).name  # names a class of the user's own
    stored = load_checkpoint(files.resume)["config"]
    given: dict[str, Any] = {}
    for file in config_files:
        given.update(read_yaml(file))
    given.update(overrides)
    given.update({k: v for k, v in (("model", name), ("dataset", dataset)) if v is not None})
    free = {key: value for key, value in given.items() if key in FREE}
    config = BBQRecConfig.from_text(stored, free)
    if "eval_args" in given:
        given["eval_args"] = complete_eval_args(given["eval_args"], config.resolved["eval_args"])
    for key, value in given.items():
        if key not in FREE and config.resolved.get(key) != value:
            raise UserError(
                f"Option `{key}` is {value!r}; the run in {files.directory} was started with "
                f"{config.resolved.get(key)!r}. Leave it out, or start a new run without `resume`."
            )
    return config, files


def find_resumable(config: BBQRecConfig) -> RunFiles | None:
    """Return the newest unfinished run of the same configuration in ``checkpoint_dir``, if any.

    Runs of other processes that are still at work are skipped.
    """
    fixed = _fixed(config.resolved)
    runs = RunFiles.all_in(config["checkpoint_dir"], config["model"])
    runs = (files for files in runs if files.resume.is_file())
    for files in sorted(runs, key=lambda files: files.resume.stat().st_mtime, reverse=True):
        if files.result.is_file() or files.is_claimed:
            continue
        try:
            stored = BBQRecConfig.from_text(load_checkpoint(files.resume)["config"])
        except UserError:
            continue  # written by another version of the program, or damaged
        if _fixed(stored.resolved) == fixed:
            return files
    return None


def _fixed(resolved: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in resolved.items() if key not in FREE}
