"""Find the run that ``--resume`` names, and check that the options agree with it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recbole_bbqrec.config.config import BBQRecConfig, complete_eval_args
from recbole_bbqrec.config.values import read_yaml
from recbole_bbqrec.distributed.group import from_main
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.model.registry import spec
from recbole_bbqrec.run_files.checkpoint import load_checkpoint, require_keys
from recbole_bbqrec.run_files.kept_data import own_data
from recbole_bbqrec.run_files.names import RunFiles

logger = logging.getLogger(__name__)

#: Options that may differ between an interrupted run and its continuation.
FREE = {
    "resume", "show_progress", "state", "checkpoint_dir", "data_path", "gpu_id", "use_gpu",
    "num_threads", "tune_allocator", "log_wandb", "wandb_project", "log_mlflow", "prepare",
    "save_data",
}  # fmt: skip


def configure(
    model: str | type | None,
    dataset: str | None,
    config_files: Sequence[str | Path],
    overrides: dict[str, Any],
) -> tuple[BBQRecConfig, RunFiles | None]:
    """Return the configuration of a run, and the files of the run that it continues, if any.

    Raises:
        UserError: no model or data set is named, an option is invalid, or there is nothing to
            resume.
    """
    resume = overrides.get("resume")
    if resume is not None and resume != "auto":
        return run_to_continue(Path(str(resume)), model, dataset, config_files, overrides)
    config = BBQRecConfig(*_names(model, dataset, config_files), config_files, overrides)
    if config["resume"] == "auto":
        return config, from_main(lambda: find_resumable(config))
    if config["resume"] is not None:  # set in a config file
        overrides["resume"] = config["resume"]
        return configure(model, dataset, config_files, overrides)
    return config, None


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
    stored = from_main(lambda: _config_to_resume(files, path))
    name = None if model is None else spec(model).name  # names a class of the user's own
    given: dict[str, Any] = {}
    for file in config_files:
        given.update(read_yaml(file))
    given.update(overrides)
    given.update({k: v for k, v in (("model", name), ("dataset", dataset)) if v is not None})
    free = {key: value for key, value in given.items() if key in FREE}
    config = BBQRecConfig.from_text(stored, {**own_data(files, free), **free})
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

    Runs of other processes that are still at work, and of other configurations, are skipped; a run
    of this configuration that cannot be continued is named in a warning, with the reason.
    """
    wanted = _fixed(config.resolved)
    runs = RunFiles.all_in(config["checkpoint_dir"], config["model"])
    dated = [(_time_of(files.resume), files) for files in runs if not files.result.is_file()]
    unusable = False
    for _, files in sorted(dated, key=lambda pair: pair[0] or 0.0, reverse=True):
        if _is_other(files, wanted):
            continue
        try:
            # A lock is the first file of a run. Asking for the claim also removes what was left of
            # one killed before its first epoch ended, or while it kept its data.
            ours = any(path.is_file() for path in (files.lock, files.config, files.resume))
            if not ours or files.is_claimed or not files.resume.is_file():
                continue
            stored = BBQRecConfig.from_text(_stored_config(files.resume))
        except (UserError, OSError) as error:
            logger.warning("Option `resume` is auto; passed over %s: %s", files.directory, error)
            unusable = True
            continue
        if _fixed(stored.resolved) == wanted:
            return files
    if unusable:
        logger.warning("Option `resume` is auto; no other run to continue: a new run begins.")
    return None


def _names(
    model: str | type | None, dataset: str | None, config_files: Sequence[str | Path]
) -> tuple[str | type, str]:
    values: dict[str, Any] = {}
    for path in config_files:
        values.update(read_yaml(path))
    model, dataset = model or values.get("model"), dataset or values.get("dataset")
    if model is None or dataset is None:
        missing = "--model" if model is None else "--dataset"
        raise UserError(f"Option `{missing}` is missing; give it, or set it in a config file.")
    return model, dataset


def _config_to_resume(files: RunFiles, path: Path) -> str:
    if not files.resume.is_file():
        raise UserError(
            f"Option `resume` is {path}; expected `auto`, a run's directory or its resume.pth, but "
            f"{files.resume} does not exist."
        )
    return _stored_config(files.resume)


def _time_of(path: Path) -> float | None:
    """Return when the file was written; None if there is none, or not for this user."""
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def _is_other(files: RunFiles, wanted: dict[str, Any]) -> bool:
    """Return True if the run's ``config.yaml`` says that it is of other options.

    False also where that cannot be read: then the checkpoint decides.
    """
    try:
        return _fixed(BBQRecConfig.from_text(files.config.read_text("utf-8")).resolved) != wanted
    except (UserError, OSError, ValueError):
        return False


def _stored_config(path: Path) -> str:
    """Return the configuration in the checkpoint at ``path``, as text."""
    state = load_checkpoint(path)
    require_keys(state, ["config", "model", "split_hash", "random"], path)
    return str(state["config"])


def fixed_options(config: BBQRecConfig) -> dict[str, Any]:
    """Return the options that may not differ within a run, as plain data."""
    return {f"option `{key}`": value for key, value in _fixed(config.resolved).items()}


def _fixed(resolved: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in resolved.items() if key not in FREE}
