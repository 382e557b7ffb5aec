"""Tiny data sets on disk and RecBole configurations for them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from recbole.config import Config

import recbole_bbqrec  # noqa: F401 - puts back the NumPy aliases that RecBole's Config reads


def write_inter(root: Path, name: str, sequences: dict[str, list[str]], order: str = "") -> Path:
    """Write <root>/<name>/<name>.inter; ``order="reversed"`` turns the file's lines around."""
    lines = [
        f"{user}\t{item}\t{time}"
        for user, items in sequences.items()
        for time, item in enumerate(items)
    ]
    lines = lines[::-1] if order == "reversed" else lines
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    text = "\n".join(["user_id:token\titem_id:token\ttimestamp:float", *lines]) + "\n"
    (folder / f"{name}.inter").write_text(text)
    return folder


def write_features(
    folder: Path, name: str, modality: str, tokens: list[str], matrix: np.ndarray
) -> None:
    """Write one modality's two files."""
    np.save(folder / f"{name}.{modality}.npy", matrix)
    (folder / f"{name}.{modality}.items.txt").write_text("".join(t + "\n" for t in tokens))


def make_config(root: Path, name: str, **settings: Any) -> Config:
    """RecBole's own Config for SASRec on <root>/<name>, leave-one-out, full ranking."""
    values: dict[str, Any] = {
        "data_path": str(root),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "train_neg_sample_args": None,
        "use_gpu": False,
        "MAX_ITEM_LIST_LENGTH": 20,
        **settings,
    }
    with mock.patch.object(sys, "argv", ["test"]):  # RecBole reads the command line
        return Config(model="SASRec", dataset=name, config_dict=values)


def random_sequences(
    rng: np.random.Generator, n_users: int, n_items: int, longest: int
) -> dict[str, list[str]]:
    """Users ``u0`` .. with 4 to ``longest`` different items each, tokens in no useful order."""
    return {
        f"u{user}": [f"i{i}" for i in rng.permutation(n_items)[: rng.integers(4, longest + 1)]]
        for user in range(n_users)
    }
