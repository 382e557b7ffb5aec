"""A training step repeated: the batch whose loss was NaN, with the weights before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.data.histories import Histories, HistoryBatch
from recbole_bbqrec.model.registry import spec
from recbole_bbqrec.quick_start import build_model, prepare
from recbole_bbqrec.reading import read_text
from recbole_bbqrec.run_files.checkpoint import load_weights
from recbole_bbqrec.run_files.kept_data import own_data
from recbole_bbqrec.run_files.names import RunFiles
from recbole_bbqrec.run_files.nan_batch import NanBatch
from recbole_bbqrec.trainer.phases.tokenize_phase import TokenizePhase


def replay(path: str | Path) -> dict[str, float]:
    """Compute the loss of the step in ``saved/<run>/nan_batch.safetensors`` again.

    Returns
    -------
    dict
        The loss terms, of the same bits as in the run on the same machine and number of threads.

    Raises
    ------
    UserError
        The file, the run's configuration or its data are missing or damaged.

    Examples
    --------
    >>> from recbole_bbqrec.experiment.replay import replay
    >>> replay("saved/my-run/nan_batch.safetensors")  # doctest: +SKIP
    {'loss': nan, 'level_1': nan, 'level_2': nan, 'level_3': nan}
    """
    step, files = NanBatch.load(path), RunFiles(Path(path).absolute().parent)
    text = read_text(files.config, "the options of a run", "Restore it.")
    quiet = {
        "log_wandb": False,
        "log_mlflow": None,
        "checkpoint_dir": str(files.directory.parent),
        "resume": None,
    }
    config = BBQRecConfig.from_text(text, {**own_data(files), **quiet})
    prepared = prepare(config)
    model = build_model(config, prepared.train_data)
    with torch.random.fork_rng(devices=[]):
        terms = _terms(config, model, prepared, step, path)
    return {name: float(value.detach()) for name, value in terms.items()}


def _terms(
    config: BBQRecConfig, model: Any, prepared: Any, step: NanBatch, path: str | Path
) -> dict[str, Tensor]:
    network, batch = model, step.batch
    if step.phase == TokenizePhase.name:
        dataset = prepared.train_data._dataset
        trained = Histories.from_training_data(dataset).trained_items(model.n_items)
        network = model.build_tokenizer(config, dataset, trained)
    load_weights(network, dict(step.weights), path)
    network.train()
    facts = spec(config["model"])
    if facts.trains_on_histories:
        model.start_epoch(step.epoch)
    torch.set_rng_state(step.random)
    if step.phase == TokenizePhase.name:
        terms: dict[str, Tensor] = network.losses(batch["rows"], batch["items"], batch["targets"])
        return terms
    if facts.two_phase:
        loss, terms = model.history_loss(HistoryBatch(**batch))
        return {"loss": loss, **terms}
    if facts.trains_on_histories:
        return {"loss": model.history_loss(HistoryBatch(**batch))}
    losses = model.calculate_loss(Interaction(dict(batch)))
    total: Any = sum(losses) if isinstance(losses, tuple) else losses
    return {"loss": total}
