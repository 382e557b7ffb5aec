"""Settings and measurements of the process: allocator, threads, precision, peak memory."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # torch takes seconds to load, and not every command needs it
    import torch

# glibc mallopt parameters (malloc.h)
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8
_MIB = 1 << 20


def _glibc() -> ctypes.CDLL | None:
    """Return the C library of the process, or None if it is not glibc."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.gnu_get_libc_version  # noqa: B018 - absent in other C libraries
    except (OSError, AttributeError):
        return None
    return libc


def tune_allocator() -> bool:
    """Make glibc keep freed memory instead of returning it to the system; True on success.

    Every training step frees and allocates the same large blocks. By default glibc unmaps them,
    and the kernel maps and zeroes them again. A no-op with another C library.
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
    """Return unused memory of the heap to the system; a no-op without glibc.

    Batches differ in size, so blocks kept by :func:`tune_allocator` seldom fit again and the heap
    grows from epoch to epoch. A call takes tenths of a second: make one per epoch, not per step.
    """
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def prepare_process(
    *, allocator: bool, num_threads: int | None, reproducible: bool, device: torch.device
) -> None:
    """Apply the process-wide settings of a run; call before torch allocates much.

    ``reproducible`` fixes the order in which the threads of a CPU operation add up (as in the
    gradient of advanced indexing): the same seed and number of threads give the same bits. It is
    not applied on a GPU, where it forbids operations that the models use; only RecBole's cuDNN
    settings apply there.
    """
    import torch

    if allocator:
        tune_allocator()
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    if device.type == "cpu":
        torch.use_deterministic_algorithms(reproducible, warn_only=True)
        # Do not fill every new tensor with NaN: a slow debugging aid of the mode.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def resolve_precision(precision: str, device: torch.device) -> torch.dtype:
    """Return the dtype of a precision; ``auto`` is bfloat16 on a GPU that has it, else float32.

    On a CPU bfloat16 is faster only with special instructions, so users must ask for it.
    """
    import torch

    if precision == "auto":
        gpu = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if gpu else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]


def autocast(dtype: torch.dtype, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Return a context that autocasts to ``dtype``; it does nothing for float32."""
    import torch

    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device_type=device.type, dtype=dtype)


def bar_is_hidden() -> bool | None:
    """Return tqdm's ``disable``: None shows a bar on a terminal only, False in a notebook, too."""
    from tqdm.auto import tqdm
    from tqdm.notebook import tqdm_notebook

    return False if issubclass(tqdm, tqdm_notebook) else None


def peak_memory_mib(device: torch.device) -> dict[str, float]:
    """Return the peak memory in MiB: resident of the "process", and of the "gpu" if in use."""
    peak: dict[str, float] = {}
    try:
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak["process"] = used / (_MIB if sys.platform == "darwin" else 1024)  # macOS counts bytes
    except ImportError:  # Windows
        import psutil

        peak["process"] = psutil.Process().memory_info().peak_wset / _MIB
    if device.type == "cuda":
        import torch

        peak["gpu"] = torch.cuda.max_memory_allocated(device) / _MIB
    return peak
