"""Launchers: how the processes of runs are started, and when the next one may start."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Callable, NamedTuple, Protocol

from recbole_bbqrec.experiment.store.process import failure, run_worker
from recbole_bbqrec.run_files.names import RESULT

Stop = Callable[[Path], bool]  # True if the run in this directory shall be ended now


class Ended(NamedTuple):
    """A process that ended.

    Attributes:
        directory: of its run.
        seconds: how long it ran.
        error: why there is no result, in one line; None if there is one.
    """

    directory: Path
    seconds: float
    error: str | None


class Launcher(Protocol):
    """Starts the processes of runs.

    ``slots`` is how many can run at the same time.
    """

    @property
    def slots(self) -> int: ...

    def launch(self, directories: Iterable[Path], stop: Stop) -> Iterator[Ended]:
        """Start a process for each directory and yield it when it has ended.

        A directory is drawn only when its process can start, so that ``directories`` may depend on
        the processes that ended before. ``stop`` is asked about each running process from time to
        time. Closing the iterator ends all processes.
        """
        ...


class OneAfterAnother:
    """Runs on this machine, one at a time.

    Two multi-threaded trainings on one machine slow each other down far more than twofold.
    """

    slots = 1

    def launch(self, directories: Iterable[Path], stop: Stop) -> Iterator[Ended]:
        for directory in directories:
            start = time.perf_counter()
            code = self._process(directory, stop)
            yield Ended(directory, time.perf_counter() - start, error_of(directory, code))

    def _process(self, directory: Path, stop: Stop) -> int:
        return run_worker(directory, stop)


def error_of(directory: Path, code: int) -> str | None:
    """Return why the process that ended with ``code`` left no result; None if it left one."""
    return None if (directory / RESULT).is_file() else failure(directory, code)
