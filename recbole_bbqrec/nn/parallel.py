"""Independent pieces of work side by side, one thread each.

Decoding a chunk of users takes hundreds of operators. Most are too small to share among threads,
but whole chunks are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Callable, TypeVar

import torch

Piece = TypeVar("Piece")
Result = TypeVar("Result")


def each(
    work: Callable[[Piece], Result], pieces: Sequence[Piece], device: torch.device
) -> list[Result]:
    """Return ``work`` of every piece, in order; raise the first error of a piece.

    On a CPU as many pieces run at once as torch has threads, each on one thread, so that results
    do not depend on the number of threads. Elsewhere they run one after the other. Gradient and
    autocast modes belong to a thread: ``work`` sets its own.
    """
    threads = torch.get_num_threads()
    workers = min(threads, len(pieces))
    if workers < 2 or device.type != "cpu" or not _threads_count_by_thread():
        return [work(piece) for piece in pieces]
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(work, pieces))
    finally:
        # set_num_threads() acts on the calling thread and on threads still to be started.
        torch.set_num_threads(threads)


def _threads_count_by_thread() -> bool:
    """Return True if torch's number of threads can differ between threads: with OpenMP."""
    return "parallel backend: OpenMP" in torch.__config__.parallel_info()
