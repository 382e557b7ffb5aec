"""A stored run under other cut-offs or metrics: its weights are evaluated, not trained again."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from recbole_bbqrec.atomic import write_text
from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.experiment.evaluate.evaluation import SPLITS, evaluate_splits
from recbole_bbqrec.experiment.evaluate.jobs import Job
from recbole_bbqrec.reading import read_text
from recbole_bbqrec.run_files.checkpoint import load_model_file, save_checkpoint
from recbole_bbqrec.run_files.final_block import final_block
from recbole_bbqrec.run_files.finished_run import FinishedRun
from recbole_bbqrec.run_files.kept_data import ReadFiles, keep_model
from recbole_bbqrec.run_files.names import CONFIG, SAVED, RunFiles
from recbole_bbqrec.version import __version__


def evaluate_anew(directory: Path, source: Path) -> dict[str, Any]:
    """Evaluate the weights of the run in ``source`` under the configuration of ``directory``.

    ``directory / SAVED`` then holds a whole run, as if it had been trained there.

    Returns:
        The result of the run, with ``evaluated_from`` and the paths of its files.

    Raises:
        UserError: the run in ``source`` is damaged, or cannot be evaluated so.
    """
    finished = FinishedRun.at(source)
    shutil.rmtree(directory / SAVED, ignore_errors=True)  # of a killed process
    files = RunFiles(directory / SAVED / finished.files.directory.name)
    text = read_text(directory / CONFIG, "the options of a run", "Run the same command again.")
    quiet = {"checkpoint_dir": SAVED, "show_progress": False, "log_wandb": False}
    config = BBQRecConfig.from_text(text, quiet)
    state = load_model_file(finished.files.model)
    save_checkpoint({**state, "config": config.to_text()}, files.model)
    files.directory.mkdir()
    for name in ("tokenizer_network", "semantic_ids", "epochs"):
        if getattr(finished.files, name).is_file():
            shutil.copyfile(getattr(finished.files, name), getattr(files, name))
    write_text(files.config, config.to_text())
    if config["save_data"]:
        ReadFiles.of(config).keep(files)

    splits = [split for split, key in SPLITS.items() if finished.result.get(key)]
    job = Job(source, replace(finished, files=files), config, {}, config["model"])
    done = dict(zip(splits, evaluate_splits(job, splits)))
    test = done["test"]
    result = {
        **finished.result,
        **{SPLITS[split]: dict(each.metrics) for split, each in done.items()},
        "version": __version__,
        "by_target": dict(test.by_target),
        "mask_history": config["mask_history"],
        "seconds": {**finished.result["seconds"], "test": round(test.seconds, 3)},
        "evaluated_from": source.name,
    }
    result.pop("files", None)
    result.pop("run", None)
    if test.users is not None:
        test.users.save(files.per_user)
    if config["save_data"]:
        keep_model(files)
    write_text(files.result, json.dumps(result, indent=2) + "\n")
    print(final_block({**result, "files": files.written()}))
    return {**result, "files": files.written()}
