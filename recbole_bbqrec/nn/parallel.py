"""Independent pieces of work side by side, one thread each.

Decoding a chunk of users is hundreds of operators, most too small to be shared out among threads;
whole chunks are not.
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
    """``work`` of every piece, in order; the first error of a piece is raised.

    On a CPU as many pieces at once as torch has threads, each with a single one, so that results
    do not depend on their number. Gradient and autocast modes belong to a thread: ``work`` sets
    its own. Elsewhere, and for a single piece, one after the other.
    """
    threads = torch.get_num_threads()
    workers = min(threads, len(pieces))
    if workers < 2 or device.type != "cpu" or not _threads_count_by_thread():
        return [work(piece) for piece in pieces]
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(work, pieces))
    finally:
        # set_num_threads() acts on the calling thread and on threads that are yet to come.
        torch.set_num_threads(threads)


def _threads_count_by_thread() -> bool:
    """Whether torch's number of threads can differ from thread to thread: with OpenMP."""
    return "parallel backend: OpenMP" in torch.__config__.parallel_info()
