"""Where a run writes: one checkpoint as RecBole names it, and a directory beside it.

``saved/<Model>-<time>.pth`` is the best model; ``saved/<Model>-<time>/`` holds the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from recbole.utils import get_local_time


@dataclass(frozen=True)
class RunFiles:
    """Paths of one run; nothing is created until something is written."""

    directory: Path

    @classmethod
    def new(cls, checkpoint_dir: str | Path, model: str) -> RunFiles:
        """A fresh name, also when another run started in the same second."""
        stem = Path(checkpoint_dir) / f"{model}-{get_local_time()}"
        directory, number = stem, 1
        while directory.exists() or directory.with_name(directory.name + ".pth").exists():
            number += 1
            directory = stem.with_name(f"{stem.name}-{number}")
        directory.mkdir(parents=True)  # claims the name
        return cls(directory)

    @property
    def model(self) -> Path:
        """Best weights of the model: what RecBole calls the saved model file."""
        return self.directory.with_name(self.directory.name + ".pth")

    @property
    def resume(self) -> Path:
        """State after the last finished epoch, of whichever phase."""
        return self.directory / "resume.pth"

    @property
    def tokenizer_network(self) -> Path:
        """Best weights of the phase-one network."""
        return self.directory / "tokenizer.pth"

    @property
    def semantic_ids(self) -> Path:
        """The semantic IDs and item vectors of phase one, keyed by raw item tokens."""
        return self.directory / "semantic_ids.safetensors"

    @property
    def epochs(self) -> Path:
        """One JSON object per epoch and phase; see :mod:`~recbole_bbqrec.trainer.epochs`."""
        return self.directory / "epochs.jsonl"

    @property
    def config(self) -> Path:
        return self.directory / "config.yaml"

    @property
    def per_user(self) -> Path:
        """Test metrics of every user: :class:`recbole_bbqrec.trainer.per_user.PerUser`."""
        return self.directory / "per_user.npz"

    @property
    def result(self) -> Path:
        return self.directory / "result.json"

    def written(self) -> dict[str, str]:
        """Name -> path of every file of the run that exists."""
        names = (
            "model", "tokenizer_network", "semantic_ids", "config", "epochs", "per_user", "result",
            "resume",
        )  # fmt: skip
        paths = {name: getattr(self, name) for name in names}
        return {name: str(path) for name, path in paths.items() if path.is_file()}
