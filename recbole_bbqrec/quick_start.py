"""Runs from one call, by the steps and seeds of RecBole's ``run_recbole``; loads finished runs."""

from __future__ import annotations

import recbole_bbqrec.config  # noqa: F401  # isort: skip - first: it says what RecBole lacks

import contextlib
import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole.utils import init_seed, set_color

from recbole_bbqrec.atomic import write_text
from recbole_bbqrec.config.checks.recbole_models import refusing_options
from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.config.processes import check_shareable
from recbole_bbqrec.config.resume import configure, fixed_options
from recbole_bbqrec.data.histories import Histories
from recbole_bbqrec.data.identity import check_same_data, data_identity, feature_sources
from recbole_bbqrec.data.loaders import create_dataset, data_loaders
from recbole_bbqrec.data.protocol.report import log_report, split_report
from recbole_bbqrec.data.protocol.split_hash import split_hash
from recbole_bbqrec.data.protocol.targets import Targets, describe_targets
from recbole_bbqrec.distributed import group
from recbole_bbqrec.loaded_run import LoadedRun
from recbole_bbqrec.model.registry import get_dataset_class, get_model
from recbole_bbqrec.prepare.on_demand import check_files, make_at_once, prepare_missing
from recbole_bbqrec.protocols import ItemDataset
from recbole_bbqrec.run_files.checkpoint import load_model_file, load_weights
from recbole_bbqrec.run_files.console import DETAIL, show_block
from recbole_bbqrec.run_files.final_block import final_block
from recbole_bbqrec.run_files.finished_run import FinishedRun
from recbole_bbqrec.run_files.kept_data import ReadFiles, keep_model, own_data
from recbole_bbqrec.run_files.names import RunFiles
from recbole_bbqrec.run_files.output_folder import check_output_folder
from recbole_bbqrec.run_files.per_user import recorded
from recbole_bbqrec.run_files.run_log import log_paths, start_logging
from recbole_bbqrec.runtime import peak_memory_mib, prepare_process
from recbole_bbqrec.trainer.mlflow_log import MlflowLog
from recbole_bbqrec.trainer.registry import get_trainer_class
from recbole_bbqrec.version import __version__

logger = logging.getLogger()


@dataclass(frozen=True)
class Prepared:
    """Configuration and data of a run before training starts."""

    config: BBQRecConfig
    dataset: ItemDataset
    train_data: Any
    valid_data: Any
    test_data: Any
    split_hash: str
    split: dict[str, Any]

    @property
    def identity(self) -> dict[str, Any]:
        """Fingerprint of the data: hash of the split, and one of each modality."""
        return data_identity(self.dataset, self.split_hash)

    def describe_targets(self, data: Any) -> Targets:
        """Describe the targets of the validation or the test loader."""
        return describe_targets(data._dataset, self.train_data._dataset, self.dataset.events)


def run(
    model: str | type | None = None,
    dataset: str | None = None,
    config_files: Sequence[str | Path] = (),
    overrides: Mapping[str, Any] | None = None,
    *,
    saved: bool = True,
    test: bool = True,
) -> dict[str, Any]:
    """Train and test one model on one data set.

    Parameters
    ----------
    model, dataset
        Name of a model, or a class of one's own, and name of a data set; ``resume`` needs neither.
    config_files
        YAML files; later ones win.
    overrides
        Values of options, which win over the files.
    saved
        Write checkpoints. False tests the best weights from memory, or for RecBole's models the
        last weights, as RecBole does.
    test
        False skips the test split, for a search of options; so does ``tokenize_only``.
        ``test_result`` is then empty.

    Returns
    -------
    dict
        ``best_valid_score`` (None without validation), ``valid_score_bigger``,
        ``best_valid_result`` and ``test_result`` as in RecBole's ``run_recbole``, and
        ``split_hash``, ``seconds``, ``peak_memory_mib``, ``files`` and more. Every value can be
        written as JSON.

    Raises
    ------
    UserError
        An option, a file or a checkpoint is invalid.

    Examples
    --------
    >>> from recbole_bbqrec import run
    >>> result = run("ItemNeighbours", "Mini")
    >>> result["users"]
    {'all': 617, 'tested': 617}
    """
    with group.processes(), contextlib.ExitStack() as claims:
        config, files = configure(model, dataset, config_files, dict(overrides or {}))
        group.check_equal({"version": __version__, **fixed_options(config)})
        if files is not None:
            _claim(files, claims)
        return _run(config, files, claims, saved=saved, test=test)


def _run(
    config: BBQRecConfig,
    files: RunFiles | None,
    claims: contextlib.ExitStack,
    *,
    saved: bool,
    test: bool,
) -> dict[str, Any]:
    """Train and test; ``files`` are given when a run is resumed."""
    start = time.perf_counter()
    prepare_process(
        allocator=config["tune_allocator"],
        num_threads=config["num_threads"],
        reproducible=config["reproducibility"],
        device=config["device"],
    )
    group.from_main(lambda: _make_data(config))
    _make_data(config)  # where the machine of process 0 has its files for itself
    check_files(config)
    if files is None and saved:  # the configuration does not check the default folder
        folder = config["checkpoint_dir"]
        group.from_main(lambda: check_output_folder("checkpoint_dir", folder))
    start_logging(config)
    config.log_to(logger)
    read = ReadFiles.of(config)
    prepared = prepare(config)
    group.check_equal({"the data": prepared.identity})
    check_shareable(config, len(Histories.from_training_data(prepared.train_data._dataset)))
    if files is None and saved:
        files = group.from_main(lambda: RunFiles.new(folder, config["model"]))
        _claim(files, claims)
    if files is not None and config["save_data"] and group.is_main():
        read.keep(files)

    network = build_model(config, prepared.train_data)
    logger.info(network, extra=DETAIL)
    trainer = get_trainer_class(config["model"])(config, network)
    trainer.use_data(prepared.identity)
    if files is not None:
        trainer.use_files(files)
        if group.from_main(files.resume.is_file):
            trainer.resume_checkpoint(files.resume)
        elif group.is_main() and not files.config.is_file():
            write_text(files.config, config.to_text())
    if config["log_mlflow"] and group.is_main():
        trainer.mlflow = claims.enter_context(MlflowLog(config, config.to_text()))
    ready = time.perf_counter()
    peaks = {"prepare": peak_memory_mib(config["device"])}  # peak up to the end of each stage

    saves, shows = files is not None, config["show_progress"]
    loaders = prepared.train_data, prepared.valid_data
    score, valid_result = trainer.fit(*loaders, saved=saves, show_progress=shows)
    trained = time.perf_counter()
    peaks["train"] = peak_memory_mib(config["device"])
    test = test and not config["tokenize_only"]  # phase one alone has no ranking to test
    test_result, by_target = _test(trainer, prepared, files) if test else ({}, {})
    if trainer.mlflow is not None:
        trainer.mlflow.add_test(_floats(test_result))
    tested = time.perf_counter()
    peaks["test"] = peak_memory_mib(config["device"])

    seconds = {"prepare": ready - start, "train": trained - ready, "test": tested - trained}
    seconds["train"] += trainer.seconds_before
    seconds.update(getattr(trainer, "phase_seconds", {}))
    result: dict[str, Any] = {
        "model": config["model"],
        "dataset": config["dataset"],
        "seed": config["seed"],
        "device": str(config["device"]),
        "version": __version__,
        "best_valid_score": float(score) if math.isfinite(score) else None,
        "valid_score_bigger": config["valid_metric_bigger"],
        "best_valid_result": _floats(valid_result),
        "test_result": _floats(test_result),
        "by_target": by_target,
        "users": {"all": prepared.dataset.user_num - 1, "tested": prepared.split["test_users"]},
        "split_hash": prepared.split_hash,
        "split": prepared.split,
        "mask_history": config["mask_history"],
        "tokenizer": getattr(trainer, "tokenizer_summary", {}),
        "features": feature_sources(prepared.dataset),
        "trainable_parameters": sum(p.numel() for p in network.parameters() if p.requires_grad),
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "peak_memory_mib": _rounded(peaks["test"]),
        "peak_memory_mib_by_stage": {stage: _rounded(peak) for stage, peak in peaks.items()},
    }
    if files is not None and group.is_main():
        if config["save_data"]:
            keep_model(files)
        write_text(files.result, json.dumps(result, indent=2) + "\n")
        result["files"] = files.written()
    result.setdefault("files", {}).update(log_paths(trainer))
    logger.info(set_color("best valid ", "yellow") + f": {result['best_valid_result']}")
    logger.info(set_color("test result", "yellow") + f": {result['test_result']}")
    show_block(final_block(result))
    return result


def prepare(config: BBQRecConfig) -> Prepared:
    """Seed, read the data set, and split it."""
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config, get_dataset_class(config["model"]))
    logger.info(dataset, extra=DETAIL)
    loaders = data_loaders(config, dataset)
    parts = [loader._dataset for loader in loaders]
    report = split_report(config, dataset, parts)
    log_report(report)
    return Prepared(config, dataset, *loaders, split_hash(*parts), report)


def build_model(config: BBQRecConfig, train_data: Any) -> Any:
    """Seed, then construct the model on the run's device, as RecBole does before training."""
    init_seed(config["seed"] + config["local_rank"], config["reproducibility"])
    with refusing_options(config):
        model = get_model(config["model"])(config, train_data._dataset)
    return model.to(config["device"])


def load_run(path: str | Path, overrides: Mapping[str, Any] | None = None) -> LoadedRun:
    """Load a finished run: its model, configuration and data.

    A run has its own copy of the data that it read, and is loaded with that: its data set may have
    changed since, or be gone. Its directory is enough.

    Parameters
    ----------
    path
        Directory ``saved/<Model>-<time>`` of a run, the ``.pth`` file beside it, or the place of
        a run in the store of ``compare``, ``tune`` and ``reproduce``.
    overrides
        Options that differ now. With ``data_path`` the data there are read, and must be the run's.

    Returns
    -------
    LoadedRun
        ``recommend`` and ``semantic_ids`` give tables of raw tokens.

    Raises
    ------
    UserError
        There is no finished run at ``path``, or the data is not the data of the run.

    Examples
    --------
    >>> from recbole_bbqrec import load_run
    >>> load_run("saved/my-run")
    <LoadedRun: BBQRec on Mini, 617 users, 405 items>
    """
    path = Path(path) if Path(path).name else Path(path).absolute()  # "." has no name
    is_file = path.suffix == ".pth" and path.is_file()
    return load_data_and_model(path if is_file else FinishedRun.at(path).files.model, overrides)


def load_data_and_model(
    model_file: str | Path, overrides: Mapping[str, Any] | None = None
) -> LoadedRun:
    """Load a saved model file and the data that it was trained on.

    Counterpart of RecBole's function, for its models and ours; nothing is unpickled.

    Args:
        model_file: ``saved/<Model>-<time>.pth``.
        overrides: options that differ now, such as ``data_path``.

    Returns:
        config, model, dataset, train_data, valid_data, test_data.

    Raises:
        UserError: the file is no checkpoint of ours, or the data is not the data of the run.
    """
    state = load_model_file(model_file)
    own = own_data(RunFiles.at(Path(model_file)), overrides)
    config = BBQRecConfig.from_text(state["config"], {**own, **(overrides or {})})
    if own:
        logger.info(f"{model_file}: read with the run's own copy of its data")
    check_files(config)
    prepared = prepare(config)
    check_same_data(state, prepared.identity, model_file, config)
    model = build_model(config, prepared.train_data)
    load_weights(model, state["state_dict"], model_file)
    model.load_other_parameter(state.get("other_parameter"))
    loaders = prepared.train_data, prepared.valid_data, prepared.test_data
    return LoadedRun(config, model.eval(), prepared.dataset, *loaders)


# helpers --------------------------------------------------------------------------------------


def _make_data(config: BBQRecConfig) -> None:
    """Make the data set, or its text, where it is absent and can be made."""
    if config["prepare"]:
        prepare_missing(config["dataset"], Path(config["data_path"]), config["modalities"] or ())
    make_at_once(config)


def _claim(files: RunFiles, claims: contextlib.ExitStack) -> None:
    """Lock the run until ``claims`` ends; of several processes the first does."""
    # The others get a plain value: a lock cannot be sent.
    group.from_main(lambda: bool(claims.enter_context(files.claim())))


def _test(trainer: Any, prepared: Prepared, files: RunFiles | None) -> tuple[Any, Any]:
    """Test the best weights, and write each user's metrics to the run's files.

    Returns the metrics, and those of each kind of targets.
    """
    with recorded(trainer) as recorder:
        result = trainer.evaluate(prepared.test_data, load_best_model=files is not None)
    targets = prepared.describe_targets(prepared.test_data)
    per_user = recorder.per_user(prepared.test_data._dataset, prepared.split_hash, targets)
    if files is not None and per_user is not None and group.is_main():
        per_user.save(files.per_user)
    return result, recorder.by_target(targets)


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 1) for name, value in values.items()}


def _floats(values: Mapping[str, Any] | None) -> dict[str, float]:
    return {name: float(value) for name, value in (values or {}).items()}
