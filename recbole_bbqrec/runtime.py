"""What a run asks of the machine: allocator, threads, numeric precision, peak memory."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from typing import Any

import torch

# glibc mallopt parameters (malloc.h)
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8
_MIB = 1 << 20


def _glibc() -> ctypes.CDLL | None:
    """The C library of the process, if it is glibc."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.gnu_get_libc_version  # noqa: B018  (absent in other C libraries)
    except (OSError, AttributeError):
        return None
    return libc


def tune_allocator() -> bool:
    """Make glibc keep freed memory instead of returning it to the system after every step.

    Training frees and asks again for the same large blocks each step; with the default settings
    every one of them is unmapped, mapped and zeroed anew by the kernel. A no-op (returning False)
    where the C library is not glibc.
    """
    libc = _glibc()
    if libc is None:
        return False
    settings = [
        (_M_MMAP_THRESHOLD, 1024 * _MIB),
        (_M_TRIM_THRESHOLD, 2047 * _MIB),
        (_M_TOP_PAD, 256 * _MIB),
        (_M_ARENA_MAX, 1),
    ]
    return all(libc.mallopt(parameter, value) == 1 for parameter, value in settings)


def trim_memory() -> None:
    """Return to the system what the heap holds and nobody uses; a no-op without glibc.

    Batches differ in size, so kept blocks seldom fit anew and the heap grows from epoch to epoch.
    Once an epoch this costs tenths of a second (:func:`tune_allocator` is about every step).
    """
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def prepare_process(
    *, allocator: bool, num_threads: int | None, reproducible: bool, device: torch.device
) -> None:
    """Apply the process-wide settings of a run; call before torch allocates much.

    With ``reproducible``, CPU operations whose threads would otherwise add in whatever order they
    arrive (the gradient of advanced indexing, for one) run in a fixed order, so that the same
    seed gives the same bits with any number of threads that stays the same. On a GPU that mode
    forbids operations in use here, and RecBole's cuDNN settings are all there is.
    """
    if allocator:
        tune_allocator()
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    if device.type == "cpu":
        torch.use_deterministic_algorithms(reproducible, warn_only=True)
        # The mode also fills every new tensor with NaN to expose reads of unset memory.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def resolve_precision(precision: str, device: torch.device) -> torch.dtype:
    """``auto`` is bfloat16 on a GPU that has it and float32 elsewhere.

    On CPUs bfloat16 pays only with the matching instructions, so it is left to the user there.
    """
    if precision == "auto":
        gpu = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if gpu else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]


def autocast(dtype: torch.dtype, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Autocast to ``dtype``, or nothing for float32."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device_type=device.type, dtype=dtype)


def peak_memory_mib(device: torch.device) -> dict[str, float]:
    """Peak resident memory of the process, and of the GPU if one is used, in MiB."""
    peak: dict[str, float] = {}
    try:
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak["process"] = used / (_MIB if sys.platform == "darwin" else 1024)  # macOS counts bytes
    except ImportError:  # Windows
        import psutil

        peak["process"] = psutil.Process().memory_info().peak_wset / _MIB
    if device.type == "cuda":
        peak["gpu"] = torch.cuda.max_memory_allocated(device) / _MIB
    return peak
