"""Evaluation that goes on with fewer users at once where memory runs out."""

from __future__ import annotations

import gc
from collections.abc import Callable
from logging import getLogger
from typing import Any, TypeVar

import torch

from recbole_bbqrec.errors import UserError

T = TypeVar("T")
#: What torch says on a CPU, where it has no exception of its own.
_WORDS = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")
_SHOWN = 160  # characters of torch's message


def with_room(evaluate: Callable[[], T], eval_data: Any, collector: Any) -> T:
    """Return ``evaluate()``; when memory runs out, halve the batches and begin anew.

    The metrics are the same: they do not depend on who is ranked together.

    Args:
        evaluate: ranks all of ``eval_data`` into ``collector``.
        eval_data: RecBole's loader, which keeps the smaller batches.
        collector: forgets what the failed attempt has put in.

    Raises:
        UserError: one user at a time is too much.
    """
    while True:
        try:
            return evaluate()
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
            reason = " ".join(str(error).split())[:_SHOWN]
            size = eval_data.batch_sampler.batch_size
            if size <= 1:
                raise UserError(
                    f"Evaluating one user at a time needs more memory than there is: {reason}. "
                    "Free memory, or lower `num_beams` or the width of the model."
                ) from error
        # Here, not above: the exception's frames held what is to be freed.
        collector.forget()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        eval_data.batch_sampler.batch_size = size // 2
        getLogger().warning(
            f"Evaluation ran out of memory with {size} users at once; it begins anew with "
            f"{size // 2} (--eval_batch_size={size // 2} starts with these). [{reason}]"
        )


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return any(words in str(error).lower() for words in _WORDS)
