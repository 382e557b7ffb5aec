"""Where a run writes: one checkpoint as RecBole names it, and a directory beside it.

``saved/<Model>-<time>.pth`` is the best model; ``saved/<Model>-<time>/`` holds the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from recbole.utils import get_local_time

from recbole_bbqrec.errors import UserError

# Files of a run in a store (experiment/store), beside the directory SAVED that RunFiles describes.
CONFIG, PLAN, RESULT, FAILURE, LOCK = "config.yaml", "plan.json", "result.json", "error.txt", "lock"
SAVED = "saved"


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

    def claim(self) -> FileLock:
        """Hold the run for this process until the result is released, or the process ends.

        Raises:
            UserError: another process holds it.
        """
        lock = FileLock(str(self.directory / "lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(
                f"Another process is working on the run in {self.directory}. Wait for it, end it, "
                "or start a new run without `resume`."
            ) from None
        return lock

    @property
    def is_claimed(self) -> bool:
        """Whether a process holds the run at this moment."""
        try:
            self.claim().release()
        except UserError:
            return True
        return False

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
        """One JSON object per epoch and phase; see :mod:`~recbole_bbqrec.run_files.epochs`."""
        return self.directory / "epochs.jsonl"

    @property
    def config(self) -> Path:
        return self.directory / "config.yaml"

    @property
    def per_user(self) -> Path:
        """Test metrics of every user: :class:`recbole_bbqrec.run_files.per_user.PerUser`."""
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
