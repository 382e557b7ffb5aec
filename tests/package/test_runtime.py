"""Threads, memory and devices that a run asks for."""

import resource
from pathlib import Path

import pytest
import torch

from recbole_bbqrec.runtime import trim_memory, tune_allocator


def _resident_mib() -> float:
    """Resident memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


@pytest.mark.skipif(not tune_allocator(), reason="the C library is not glibc")
def test_trim_returns_the_holes_of_a_heap() -> None:
    blocks = [torch.ones(1 << 20) for _ in range(64)]  # 4 MiB each
    kept = blocks[::8]  # the heap's end stays in use: only holes can be returned
    kept.append(blocks[-1])
    full = _resident_mib()
    del blocks
    assert _resident_mib() > full - 50
    trim_memory()
    assert _resident_mib() < full - 150
    assert all(bool((block == 1).all()) for block in kept)
