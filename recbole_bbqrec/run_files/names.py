"""Names of all files of a run; no other module spells them.

A run writes ``saved/<Model>-<time>.pth``, the best model as RecBole names it, and the directory
``saved/<Model>-<time>/`` for everything else (:mod:`~recbole_bbqrec.run_files.kept_data`). A run
store (``experiment/store``) keeps each run in a directory of its own, which holds the store's files
and ``saved/``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from recbole.utils import get_local_time

from recbole_bbqrec.atomic import remove_unfinished, writing
from recbole_bbqrec.errors import UserError

# Files that a run and its directory in a store have both.
CONFIG = "config.yaml"  # resolved options
RESULT = "result.json"  # metrics, seconds and files; written last
LOCK = "lock"  # held by the process that works on the run
# Files of a store alone.
PLAN = "plan.json"  # model, data, seed and key of the run
MASKED = "masked.json"  # its test metrics with the history left out of the ranking
LOG = "run.log"  # standard output and error of the run's process
FAILURE = "error.txt"  # message of a run that failed
SAVED = "saved"  # checkpoint_dir of the run
# Files of a run alone.
REPORT_PAGE, REPORT_DATA = "report.html", "report.json"
MODEL_CARD = "model_card.md"
_CHECKPOINT = ".pth"
_RESUME = "resume.pth"
_INSIDE = "model.pth"  # the model's name in the run's directory
_DATA = "data"


class InUseError(UserError):
    """Another process is working on the run."""


@dataclass(frozen=True)
class RunFiles:
    """Paths of one run."""

    directory: Path

    @classmethod
    def new(cls, checkpoint_dir: str | Path, model: str) -> RunFiles:
        """Make the directory of a new run, under a name that no other run has."""
        stem = Path(checkpoint_dir) / f"{model}-{get_local_time()}"
        files, number = cls(stem), 1
        while files.directory.exists() or files.model.exists():
            number += 1
            files = cls(stem.with_name(f"{stem.name}-{number}"))
        with writing(files.directory):
            files.directory.mkdir(parents=True)
        return files

    @classmethod
    def at(cls, path: Path) -> RunFiles:
        """Return the run named by ``path``: its directory, its model or its ``resume.pth``."""
        inside = path.name == _INSIDE and not path.with_suffix("").is_dir()
        if path.name == _RESUME or inside:
            return cls(path.parent)
        return cls(path.with_suffix("") if path.suffix == _CHECKPOINT else path)

    @classmethod
    def all_in(cls, checkpoint_dir: str | Path, model: str = "*") -> Iterator[RunFiles]:
        """Yield the runs in ``checkpoint_dir``, of all models or of one."""
        for directory in Path(checkpoint_dir).glob(f"{model}-*"):
            if directory.is_dir():
                yield cls(directory)

    def claim(self) -> FileLock:
        """Lock the run for this process, until the lock is released or the process ends.

        Temporary files that a killed process of the run left are removed.

        Raises:
            InUseError: another process holds the lock.
            UserError: this user may not write to the run.
        """
        lock = FileLock(str(self.lock))
        try:
            with writing(self.lock):
                lock.acquire(timeout=0)
        except Timeout:
            raise InUseError(
                f"Another process is working on the run in {self.directory}. Wait for it, end it, "
                "or start a new run without `resume`."
            ) from None
        self._remove_unfinished()
        return lock

    @property
    def is_claimed(self) -> bool:
        """Return True if a process holds the lock at this moment; raises as :meth:`claim`."""
        try:
            self.claim().release()
        except InUseError:
            return True
        return False

    def _remove_unfinished(self) -> None:
        for folder in (self.directory, self.data, *self.data.glob("*/")):
            remove_unfinished(folder)
        remove_unfinished(self.model.parent, of=self.model.name)

    @property
    def model(self) -> Path:
        """Best weights of the model, RecBole's ``saved_model_file``; inside a directory alone."""
        beside = self.directory.with_name(self.directory.name + _CHECKPOINT)
        alone = self.model_inside.is_file() and not beside.is_file()
        return self.model_inside if alone else beside

    @property
    def lock(self) -> Path:
        """Lock of the process that works on the run."""
        return self.directory / LOCK

    @property
    def model_inside(self) -> Path:
        """The same weights in the run's directory."""
        return self.directory / _INSIDE

    @property
    def data(self) -> Path:
        """The data that the run read, as a folder of data sets."""
        return self.directory / _DATA

    @property
    def manifest(self) -> Path:
        """Names and checksums of the files in :attr:`data`."""
        return self.data / "manifest.json"

    @property
    def pool(self) -> Path:
        """Folder by which runs share files of data: beside the runs, or of their store."""
        beside = self.directory.absolute().parent
        in_store = beside.name == SAVED and (beside.parent / PLAN).is_file()
        return (beside.parents[3] if in_store else beside) / _DATA

    @property
    def resume(self) -> Path:
        """State after the last finished epoch of the current phase."""
        return self.directory / _RESUME

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
        """One JSON object per epoch; see :mod:`~recbole_bbqrec.run_files.epochs`."""
        return self.directory / "epochs.jsonl"

    @property
    def nan_batch(self) -> Path:
        """The batch of a training step whose loss was NaN, see :mod:`.nan_batch`."""
        return self.directory / "nan_batch.safetensors"

    @property
    def config(self) -> Path:
        """Resolved options, as YAML."""
        return self.directory / CONFIG

    @property
    def per_user(self) -> Path:
        """Test metrics of every user; see :mod:`~recbole_bbqrec.run_files.per_user`."""
        return self.directory / "per_user.npz"

    @property
    def result(self) -> Path:
        """Result of the finished run, as JSON."""
        return self.directory / RESULT

    def written(self) -> dict[str, str]:
        """Return name -> path of the run's files that exist."""
        names = (
            "model", "tokenizer_network", "semantic_ids", "config", "epochs", "per_user", "result",
            "resume",
        )  # fmt: skip
        paths = {name: getattr(self, name) for name in names}
        return {name: str(path) for name, path in paths.items() if path.is_file()}
