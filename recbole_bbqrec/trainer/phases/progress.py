"""Progress of training: mean loss terms, and a progress bar with log lines printed above it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from tqdm.auto import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from recbole_bbqrec.distributed.sums import total
from recbole_bbqrec.runtime import bar_is_hidden


class TermMeans:
    """Running means of named loss terms, summed on the device without synchronising."""

    def __init__(self) -> None:
        self.steps = 0
        self._sums: dict[str, torch.Tensor] = {}

    def add(self, terms: Mapping[str, torch.Tensor]) -> None:
        """Add the terms of one step, each a scalar."""
        for name, value in terms.items():
            value = value.detach().double()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self.steps += 1

    def means(self) -> dict[str, float]:
        """Return the mean of each term over the steps so far; synchronises once.

        Of several processes, which all must call this, the parts of a term add up.
        """
        if not self._sums:
            return {}
        values = total(torch.stack(list(self._sums.values()))) / self.steps
        return dict(zip(self._sums, values.tolist()))


class HeldLog:
    """A logger whose lines may wait until the state of their epoch is saved."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._holds = False
        self._lines: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._logger, name)

    def hold(self, holds: bool) -> None:
        """Keep the lines from now on, or let them pass."""
        self.release()
        self._holds = holds

    def info(self, line: str) -> None:
        """Log a line, now or later."""
        self._lines.append(line)
        if not self._holds:
            self.release()

    def release(self) -> None:
        """Log the lines kept; later ones pass."""
        self._holds = False
        for line in self._lines:
            self._logger.info(line)
        self._lines.clear()


@contextmanager
def progress_bar(name: str, *, total: int, done: int, unit: str, show: bool) -> Iterator[tqdm[Any]]:
    """Yield a bar over ``total`` units, ``done`` of them finished, for terminals and notebooks."""
    bar = tqdm(
        total=total,
        initial=done,
        desc=name,
        unit=unit,
        dynamic_ncols=True,
        disable=bar_is_hidden() if show else True,
    )
    with bar:
        if bar.disable:
            yield bar
        else:
            with logging_redirect_tqdm():
                yield bar
