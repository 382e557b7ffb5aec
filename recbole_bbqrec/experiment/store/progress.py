"""One line a run: which, how long it took, and when all will be done."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any, Callable


class Progress:
    """Says when runs start and finish, with the time left as earlier runs let it be foreseen."""

    def __init__(self, say: Callable[[str], None], total: int) -> None:
        self._say, self._total, self._done = say, total, 0
        self._seconds: dict[tuple[str, str], list[float]] = {}  # (model, data set) -> of each run

    def know(self, model: str, dataset: str, result: dict[str, Any] | None) -> None:
        """Take the time of a run that was there already into account."""
        seconds = (result or {}).get("seconds", {})
        known = sum(seconds.get(stage, 0.0) for stage in ("prepare", "train", "test"))
        if known:
            self._seconds.setdefault((model, dataset), []).append(known)

    def start(self, name: str, log: Path) -> None:
        self._say(f"[{self._done + 1}/{self._total}] {name}: running, log in {log}")

    def skip(self) -> None:
        """Count one that needs no running."""
        self._done += 1

    def finish(
        self,
        model: str,
        dataset: str,
        seconds: float,
        error: str | None,
        left: Sequence[tuple[str, str]],
    ) -> None:
        """Say how the running run ended.

        ``left``: model and data set of those to come; where the total says that there are more,
        they count as runs like this one.
        """
        self._done += 1
        left = [*left, *[(model, dataset)] * (self._total - self._done - len(left))]
        if error is None:
            self._seconds.setdefault((model, dataset), []).append(seconds)
        ended = "done" if error is None else "FAILED"
        line = f"[{self._done}/{self._total}] {ended} in {duration(seconds)}"
        if left and self._seconds:
            line += f", about {duration(sum(map(self._expected, left)))} to go"
        self._say(line if error is None else f"{line}: {error}")

    def expected(self, model: str, dataset: str) -> float | None:
        """Seconds that a run will take by those of earlier ones, None before the first."""
        return self._expected((model, dataset)) if self._seconds else None

    def _expected(self, which: tuple[str, str]) -> float:
        """Seconds: of the same model and data, else of the same data, else of any."""
        same_data = [s for key, s in self._seconds.items() if key[1] == which[1]]
        known = self._seconds.get(which) or [s for group in same_data for s in group]
        return mean(known or [s for group in self._seconds.values() for s in group])


def duration(seconds: float, decimals: int = 0) -> str:
    """``42 s``, ``3 min 20 s``, ``2 h 5 min``; ``decimals`` of the seconds below a minute."""
    if round(seconds, decimals) < 60:
        return f"{seconds:.{decimals}f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
