"""Single-phase models on Mini with tiny widths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.data.histories import Histories, HistoryBatch, HistoryBatches
from recbole_bbqrec.quick_start import Prepared, build_model, prepare, run

DATA = str(Path(__file__).resolve().parents[2] / "dataset")
_COMMON = {
    "data_path": DATA,
    "epochs": 2,
    "eval_step": 1,
    "train_batch_size": 512,
    "learning_rate": 0.003,
    "hidden_size": 16,
    "seed": 7,
    "show_progress": False,
    "state": "WARNING",
}
_ATTENTION = {"n_heads": 2, "encoder_layers": 1, "inner_size": 32, "dropout": 0.2}
_RECBOLE = {"n_layers": 1, "inner_size": 32, "hidden_dropout_prob": 0.2, "attn_dropout_prob": 0.2}
_CODES = {"code_digits": 4, "codebook_size": 16, "opq_iterations": 3}
SMALL: dict[str, dict[str, Any]] = {
    "MMGRU4Rec": {"embedding_size": 16, "feature_size": 8},
    "MMSASRec": {**_RECBOLE, "feature_size": 8},
    "NOVABERT": _RECBOLE,
    "MISSRec": {**_ATTENTION, "decoder_layers": 1, "interest_ratio": 0.2},
    "VQRec": {**_ATTENTION, **_CODES},
    "ESASRec": _ATTENTION,
    "ESASRecNeighbours": _ATTENTION,
    "VQRecNeighbours": {**_ATTENTION, **_CODES},
    "RPG": {**_ATTENTION, **_CODES},
}


def options(name: str, **overrides: Any) -> dict[str, Any]:
    return {**_COMMON, **SMALL[name], **overrides}


def train(name: str, **overrides: Any) -> dict[str, Any]:
    """A whole run in the working directory."""
    return run(name, "Mini", overrides=options(name, **overrides))


def build(name: str, **overrides: Any) -> tuple[Any, Prepared]:
    """An untrained model in evaluation mode, and its data."""
    config = BBQRecConfig(name, "Mini", overrides=options(name, **overrides))
    data = prepare(config)
    return build_model(config, data.train_data).eval(), data


def rows_of_test(data: Prepared, n: int = 16) -> Any:
    """The first n rows of the test split as a batch."""
    return data.test_data._dataset.inter_feat[torch.arange(n)]


def unequal_histories(model: Any, data: Prepared) -> tuple[torch.Tensor, torch.Tensor]:
    """Items [12, T] of test histories and their lengths [12], of which many differ."""
    rows = rows_of_test(data, 12)
    items, lengths = rows[model.ITEM_SEQ], rows[model.ITEM_SEQ_LEN]
    assert len(lengths.unique()) > 3
    return items, lengths


def history_batch(data: Prepared) -> HistoryBatch:
    """About 64 training targets, in whole histories."""
    histories = Histories.from_training_data(data.train_data._dataset)
    return next(iter(HistoryBatches(histories, batch_size=64, max_length=20, seed=1).epoch(0)))
