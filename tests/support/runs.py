"""Runs that take seconds, and what a test reads of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from recbole_bbqrec.run_files.epochs import read_epochs

ROOT = Path(__file__).resolve().parents[2]

#: A BBQRec run that takes seconds: every part is there, all are small.
TINY = {
    "data_path": str(ROOT / "dataset"),
    "tokenizer_epochs": 3,
    "tokenizer_warmup_epochs": 1,
    "tokenizer_batch_size": 128,
    "epochs": 2,
    "eval_step": 1,
    "train_batch_size": 256,
    "learning_rate": 0.003,
    "feature_whitening": True,
    "cooccurrence_weight": 2.0,
    "feature_similarity_weight": 1.0,
    "codebook_size": 32,
    "codebook_dim": 16,
    "encoder_hidden": [32],
    "sequence_hidden_size": 32,
    "sequence_layers": 1,
    "hidden_size": 32,
    "inner_size": 64,
    "n_heads": 2,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "num_beams": 20,
    "show_progress": False,
    "state": "WARNING",
}


def measured(path: str) -> list[dict]:
    """The lines of an ``epochs.jsonl`` without what no two runs share: time and memory."""
    passing = ("seconds", "peak_memory_mib")
    return [{k: v for k, v in line.items() if k not in passing} for line in read_epochs(Path(path))]


#: So few codes that items collide, even after re-assignment.
CROWDED = {**TINY, "codebook_size": 4, "codebook_levels": 2, "generation_loss": "item"}
EXACT_USERS = 40


def finished_run(directory: Path, model: str, options: dict):
    """Run a model on Mini in ``directory``; what a report card starts from."""
    from recbole_bbqrec.quick_start import run
    from recbole_bbqrec.run_files.finished_run import FinishedRun

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        result = run(model, "Mini", overrides=options)
    return FinishedRun.at(directory / result["files"]["model"])
