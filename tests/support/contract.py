"""One tiny run of each model on a cut of Mini, for the contract that all of them keep."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from recbole_bbqrec.model.registry import spec
from recbole_bbqrec.model.specs import MODELS
from recbole_bbqrec.quick_start import load_data_and_model, run
from tests.support import fused
from tests.support.rqvae import small
from tests.support.runs import ROOT, TINY

N_USERS, N_ITEMS = 100, 90  # of the cut, at most
_LAYERS = {"hidden_size": 16, "inner_size": 32, "n_layers": 1}
RECBOLES = {
    "SASRec": _LAYERS,
    "GRU4Rec": {"embedding_size": 16, "hidden_size": 16},
    "BERT4Rec": _LAYERS,
}
#: RecBole's models with a list of item fields, made small.
WITH_FIELDS = {"SASRecF": _LAYERS, "FDSA": _LAYERS, "GRU4RecF": RECBOLES["GRU4Rec"]}
NAMES = [*MODELS, *RECBOLES]
#: The cut has users and items with fewer events than Mini has.
EVERY_EVENT = {"user_inter_num_interval": "[1,inf)", "item_inter_num_interval": "[1,inf)"}
_COMMON = {
    "epochs": 2, "eval_step": 1, "train_batch_size": 64, "learning_rate": 0.003, "seed": 7,
    "show_progress": False, "state": "WARNING", "topk": [1, 5, 10],
    **EVERY_EVENT,
}  # fmt: skip
_TWO_PHASE = {
    "tokenizer_epochs": 2, "tokenizer_warmup_epochs": 1, "tokenizer_batch_size": 32,
    "num_beams": 40, "codebook_size": 16, "codebook_dim": 8,
}  # fmt: skip
_OF = {
    **RECBOLES,
    **fused.SMALL,
    "LETTER": {"cf_epochs": 1, "diversity_clusters": 4},
    "ItemNeighbours": {}, "STAR": {}, "TGH": {},
}  # fmt: skip
#: Rates to set to zero where a model has them: dropout draws other numbers on another device.
DROPOUTS = (
    "dropout", "encoder_dropout", "sequence_dropout", "hidden_dropout_prob", "attn_dropout_prob",
    "dropout_prob",
)  # fmt: skip


def options(name: str, data_path: Path) -> dict[str, Any]:
    """Return the options of a model's run that takes about a second."""
    own = _OF.get(name, {})
    if spec(name).two_phase:
        sized = small(TINY) if spec(name).base == "TIGER" or name == "TIGER" else TINY
        own = {**sized, **_TWO_PHASE, **own}
    return {**own, **_COMMON, "data_path": str(data_path)}


def write_cut(root: Path) -> Path:
    """Write Mini with its first users and their most frequent items below ``root``."""
    source, target = ROOT / "dataset" / "Mini", root / "Mini"
    shutil.copytree(source, target)
    header, *lines = (source / "Mini.inter").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines]
    users = list(dict.fromkeys(row[0] for row in rows))[:N_USERS]
    counts = Counter(row[1] for row in rows if row[0] in set(users))
    items = {item for item, _ in counts.most_common(N_ITEMS)}
    kept = [row for row in rows if row[0] in set(users) and row[1] in items]
    events = Counter(row[0] for row in kept)
    text = ["\t".join(row) for row in kept if events[row[0]] >= 4]
    (target / "Mini.inter").write_text("\n".join([header, *text]) + "\n", encoding="utf-8")
    return root


@contextlib.contextmanager
def working_in(directory: Path) -> Iterator[None]:
    """Make ``directory`` the working directory for the length of the block."""
    before = os.getcwd()
    os.chdir(directory)
    try:
        yield
    finally:
        os.chdir(before)


@dataclass
class Loaded:
    """Result of ``load_data_and_model``, by name."""

    config: Any
    model: Any
    dataset: Any
    train_data: Any
    valid_data: Any
    test_data: Any

    @cached_property
    def rows(self) -> Any:
        """All rows of the test split, as a batch."""
        return self.test_data._dataset.inter_feat


class ContractRun:
    """A finished run of one model; everything in it is computed when first asked for."""

    def __init__(self, name: str, directory: Path, data: Path) -> None:
        self.name, self.directory, self.data = name, directory, data
        self.options = options(name, data)

    @cached_property
    def result(self) -> dict[str, Any]:
        return self.again("first")

    def again(self, folder: str, **changes: Any) -> dict[str, Any]:
        """Train in a folder of its own; the files of the result have absolute paths."""
        (self.directory / folder).mkdir()
        with working_in(self.directory / folder):
            result = run(self.name, "Mini", overrides={**self.options, **changes})
            result["files"] = {k: str(Path(v).resolve()) for k, v in result["files"].items()}
        return result

    @cached_property
    def loaded(self) -> Loaded:
        """The saved model, loaded anew; tests share it and leave it as it is."""
        return self.load()

    def load(self, **overrides: Any) -> Loaded:
        """Load the saved model anew, in evaluation mode."""
        path = self.result["files"]["model"]
        with working_in(self.directory / "first"):
            loaded = Loaded(*load_data_and_model(path, overrides))
        loaded.model.eval()
        return loaded

    def weights(self, result: dict[str, Any] | None = None) -> dict[str, torch.Tensor]:
        """Return the saved weights of the run, or of the run with this result."""
        files = (result or self.result)["files"]
        return torch.load(files["model"], weights_only=True)["state_dict"]


def small_bbqrec(root: Path) -> Path:
    """Train BBQRec on a cut of Mini below ``root`` in float32; return the run's directory."""
    given = {**options("BBQRec", write_cut(root)), "precision": "float32"}
    result = run("BBQRec", "Mini", overrides={**given, "checkpoint_dir": str(root / "saved")})
    return Path(result["files"]["model"]).with_suffix("")
