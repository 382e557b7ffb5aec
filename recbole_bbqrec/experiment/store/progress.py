"""Progress of several runs: one line when a run starts and one when it ends."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any, Callable


class Progress:
    """Reports the start and end of runs, and the time left as estimated from earlier ones."""

    def __init__(self, echo: Callable[[str], None], total: int, at_once: int = 1) -> None:
        self._echo, self._total, self._at_once = echo, total, at_once
        self._started = self._done = 0
        self._seconds: dict[tuple[str, str], list[float]] = {}  # by (model, data set)

    def add_known(self, model: str, dataset: str, result: dict[str, Any] | None) -> None:
        """Use the time of a run that was already finished for the estimates."""
        seconds = (result or {}).get("seconds", {})
        known = sum(seconds.get(stage, 0.0) for stage in ("prepare", "train", "test"))
        if known:
            self._seconds.setdefault((model, dataset), []).append(known)

    def start(self, name: str, log_file: Path) -> None:
        self._started += 1
        self._echo(f"[{self._started}/{self._total}] {name}: running, log in {log_file}")

    def skip(self) -> None:
        """Count a run that need not be made."""
        self._started += 1
        self._done += 1

    def finish(
        self,
        name: str,
        model: str,
        dataset: str,
        seconds: float,
        error: str | None,
        pending: Sequence[tuple[str, str]],
    ) -> None:
        """Report how a run ended.

        ``pending``: model and data set of the runs that have not ended. If the total is larger, the
        others are estimated as runs like this one.
        """
        self._done += 1
        pending = [*pending, *[(model, dataset)] * (self._total - self._done - len(pending))]
        if error is None:
            self._seconds.setdefault((model, dataset), []).append(seconds)
        ended = "done" if error is None else "FAILED"
        which = f"{name}: " if self._at_once > 1 else ""
        line = f"[{self._done}/{self._total}] {which}{ended} in {duration(seconds)}"
        if pending and self._seconds:
            left = sum(map(self._expected, pending)) / min(self._at_once, len(pending))
            line += f", about {duration(left)} to go"
        self._echo(line if error is None else f"{line}: {error}")

    def expected(self, model: str, dataset: str) -> float | None:
        """Estimate the seconds that a run will take; None before the first run."""
        return self._expected((model, dataset)) if self._seconds else None

    def _expected(self, kind: tuple[str, str]) -> float:
        """Mean seconds of runs of the same model and data, else of the same data, else of all."""
        same_data = [s for key, s in self._seconds.items() if key[1] == kind[1]]
        known = self._seconds.get(kind) or [s for group in same_data for s in group]
        return mean(known or [s for group in self._seconds.values() for s in group])


def duration(seconds: float, decimals: int = 0) -> str:
    """Write ``42 s``, ``3 min 20 s`` or ``2 h 5 min``; ``decimals`` apply below a minute."""
    if round(seconds, decimals) < 60:
        return f"{seconds:.{decimals}f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
