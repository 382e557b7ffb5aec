"""Latency of a generative model's ten best items for one user, on this machine."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from recbole_bbqrec.quick_start import load_data_and_model
from recbole_bbqrec.runtime import prepare_process

USERS, WARM_UP, TOP = 200, 10, 10


@dataclass(frozen=True)
class Latency:
    """Seconds per user, one user at a time: median and 95th percentile over ``users``."""

    users: int
    median: float
    p95: float


@dataclass(frozen=True)
class Timing:
    """Latency of one model by beam width, and the kind of machine."""

    by_beams: dict[int, Latency]
    machine: str


def measure(model_file: Path, data_path: str, beams: Sequence[int], users: int = USERS) -> Timing:
    """Time a trained model from history to ranked items, encoder included, batch size 1.

    The users are drawn from the test split by the run's seed, so they are the same for every beam
    and for all models of a seed. Each beam first decodes ``WARM_UP`` users untimed.
    """
    config, model, _, _, _, test_data = load_data_and_model(model_file, {"data_path": data_path})
    device = torch.device(config["device"])
    prepare_process(
        allocator=config["tune_allocator"],
        num_threads=config["num_threads"],
        reproducible=config["reproducibility"],
        device=device,
    )
    model.eval()
    rows = test_data._dataset.inter_feat
    generator = torch.Generator().manual_seed(config["seed"])
    chosen = torch.randperm(len(rows), generator=generator)[: max(users, WARM_UP)]
    rows = rows[chosen].to(device)
    items, lengths = rows[model.ITEM_SEQ], rows[model.ITEM_SEQ_LEN]
    by_beams = {}
    for width in beams:
        model.num_beams = width
        for row in range(min(WARM_UP, len(items))):
            _seconds(model, items[row : row + 1], lengths[row : row + 1])
        times = [
            _seconds(model, items[row : row + 1], lengths[row : row + 1])
            for row in range(min(users, len(items)))
        ]
        p95 = sorted(times)[min(len(times) - 1, int(0.95 * len(times)))]
        by_beams[width] = Latency(len(times), statistics.median(times), p95)
    precision = str(model.dtype).removeprefix("torch.")
    return Timing(by_beams, f"{machine(device)}, {precision}")


def machine(device: torch.device) -> str:
    """Describe the machine, as needed to judge a time."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    capability = torch.backends.cpu.get_cpu_capability()
    return (
        f"CPU {platform.machine()} ({capability}), {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    )


def _seconds(model: torch.nn.Module, items: torch.Tensor, lengths: torch.Tensor) -> float:
    _wait(items.device)
    start = time.perf_counter()
    model.recommend(items, lengths, TOP)  # type: ignore[operator]
    _wait(items.device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
