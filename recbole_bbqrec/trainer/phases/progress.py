"""One progress bar a phase, on a terminal only, with log lines printed above it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm


@contextmanager
def progress_bar(name: str, *, total: int, done: int, unit: str, show: bool) -> Iterator[tqdm[Any]]:
    """A bar over ``total`` units of which ``done`` lie behind; shows the time left."""
    bar = tqdm(
        total=total,
        initial=done,
        desc=name,
        unit=unit,
        dynamic_ncols=True,
        disable=None if show else True,  # None: only on a terminal
    )
    with bar:
        if bar.disable:
            yield bar
        else:
            with logging_redirect_tqdm():
                yield bar
