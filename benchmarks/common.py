"""Shared parts of the benchmarks: workload, clocks, memory, and the tables that they print."""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pandas as pd
import torch

from recbole_bbqrec.data.histories import Histories
from recbole_bbqrec.generator.items.catalogue import Catalogue
from recbole_bbqrec.generator.network.seq2seq import Generator
from recbole_bbqrec.generator.settings import GeneratorSettings
from recbole_bbqrec.runtime import autocast, tune_allocator

LEVELS, CODES, MAX_ITEMS = 3, 256, 20  # L, N and the history limit of the paper
CPU = torch.device("cpu")
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def arguments(description: str | None, **extra: Any) -> argparse.Namespace:
    """Parse the options of every script, and ``extra``: name -> default, of the option's type."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--small", action="store_true", help="seconds instead of minutes")
    parser.add_argument("--data-path", default=None, help="folder that holds Beauty/Beauty.inter")
    parser.add_argument("--dataset", default="Beauty")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=None, help="default: OMP_NUM_THREADS or all")
    parser.add_argument("--precision", choices=tuple(PRECISIONS), default="bfloat16")
    for name, default in extra.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    options = parser.parse_args()
    start(options)
    return options


def start(options: argparse.Namespace) -> None:
    """Apply the process-wide settings; every child process calls this too."""
    tune_allocator()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)


# workload -------------------------------------------------------------------------------------


def load_events(options: argparse.Namespace) -> tuple[list[np.ndarray], int, str]:
    """Return every user's events in time order, n_items with [PAD], and their source."""
    path = Path(options.data_path or "dataset") / options.dataset / f"{options.dataset}.inter"
    if path.is_file():
        events, n_items = _read(path)
        source = f"{options.dataset} ({len(events)} users, {n_items - 1} items)"
    else:
        events, n_items = _synthetic(options.seed)
        source = f"synthetic data of Beauty's shape ({len(events)} users, {n_items - 1} items)"
    return (events[:1000] if options.small else events), n_items, source


def _read(path: Path) -> tuple[list[np.ndarray], int]:
    """Read a prepared 5-core file with columns user, item and time."""
    frame = pd.read_csv(path, sep="\t")
    frame.columns = [name.partition(":")[0] for name in frame.columns]
    items, names = pd.factorize(frame["item_id"])
    frame["item"] = items + 1
    frame = frame.sort_values(["user_id", "timestamp"], kind="stable")
    events = [group.to_numpy() for _, group in frame.groupby("user_id", sort=False)["item"]]
    return events, len(names) + 1


def _synthetic(seed: int) -> tuple[list[np.ndarray], int]:
    """Draw data of Beauty's size: 5 events per user plus a geometric number, Zipf items."""
    rng = np.random.default_rng(seed)
    lengths = 4 + rng.geometric(1 / 4.88, 22363)
    popularity = 1.0 / np.arange(10, 12101 + 10)
    flat = rng.choice(12101, lengths.sum(), p=popularity / popularity.sum()) + 1
    return np.split(flat, lengths.cumsum()[:-1]), 12102


def training_histories(events: list[np.ndarray]) -> Histories:
    """Return all but the last two events of each user, which are for validation and test."""
    kept = [user[:-2] for user in events if len(user) > 3]
    lengths = torch.tensor([0] + [len(user) for user in kept])
    items = torch.from_numpy(np.concatenate(kept).astype(np.int64))
    return Histories(items, lengths.cumsum(0), torch.arange(1, len(kept) + 1))


def test_histories(events: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the test split: items int64 [B, 20], lengths [B], targets [B]."""
    items = np.zeros((len(events), MAX_ITEMS), dtype=np.int64)
    lengths = np.zeros(len(events), dtype=np.int64)
    for row, user in enumerate(events):
        history = user[:-1][-MAX_ITEMS:]
        items[row, : len(history)], lengths[row] = history, len(history)
    targets = np.array([user[-1] for user in events], dtype=np.int64)
    return torch.from_numpy(items), torch.from_numpy(lengths), torch.from_numpy(targets)


#: Settings that turn the paper's network into the default one (properties/model/BBQRec.yaml).
DEFAULT: dict[str, Any] = {
    "generation_loss": "item",
    "history_tokens": "item",
    "item_embedding": True,
    "item_head": True,
    "repeat_logit": True,
    "decoder_layers": 1,
    "feature_dim": 2 * 512,  # two modalities of `feature_components`
}


def random_catalogue(
    n_items: int, signals: int, seed: int, vectors: bool = True, feature_dim: int = 0
) -> Catalogue:
    """Draw uniform codes, which give the widest first level possible for this many items."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, CODES, (n_items, LEVELS, signals), generator=generator)
    codes[0] = 0
    matrix = torch.randn(n_items, signals * 128, generator=generator) if vectors else None
    if matrix is not None:
        matrix[0] = 0
    features = torch.randn(n_items, feature_dim, generator=generator) if feature_dim else None
    return Catalogue.build(codes, matrix, CODES, features=features)


def generator_of(catalogue: Catalogue, **settings: Any) -> Generator:
    """Build BBQRec's network at its default width, with two decoder layers and the code loss."""
    values: dict[str, Any] = {
        "levels": LEVELS,
        "codebook_size": CODES,
        "n_signals": catalogue.codes.shape[2],
        "vector_dim": 0 if catalogue.vectors is None else catalogue.vectors.shape[1],
        "similarity": catalogue.vectors is not None,
        "dropout": 0.2,
        "decoder_layers": 2,
        "history_tokens": "level",
        "generation_loss": "code",
        "item_embedding": False,
        "item_head": False,
        "repeat_logit": False,
    }
    values.update(settings)
    return Generator(GeneratorSettings(**values))


def parameters_in_millions(module: torch.nn.Module) -> str:
    return f"{sum(p.numel() for p in module.parameters()) / 1e6:.2f} M parameters"


# clocks and memory ----------------------------------------------------------------------------


def seconds(call: Callable[[], Any], repeats: int = 3, warmup: int = 1) -> float:
    """Return the median wall-clock seconds of ``call``."""
    for _ in range(warmup):
        call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def interleaved(calls: dict[str, Callable[[], Any]], repeats: int, warmup: int = 1) -> dict:
    """Return median seconds of each call; they take turns, so drift of the machine hits all."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(warmup + repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn >= warmup:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def _status(key: str) -> float:
    """Return a line of /proc/self/status in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    return float("nan")


def peak_growth(call: Callable[[], Any]) -> tuple[Any, float]:
    """Return the result of ``call`` and the growth in MiB of a fresh process's resident memory."""
    before = _status("VmRSS")
    result = call()
    return result, _status("VmHWM") - before


def in_child(target: Callable[..., Any], *args: Any) -> Any:
    """Return ``target(*args)`` of a new process, whose peak memory no earlier run has raised."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(target, args)


# output ---------------------------------------------------------------------------------------


def heading(title: str, options: argparse.Namespace, source: str = "") -> None:
    """Print the machine class and the settings that the figures depend on."""
    cpu = platform.processor() or platform.machine()
    flags = ""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        text = info.read_text()
        present = [f for f in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f" {f}" in text]
        flags = f" [{', '.join(present)}]"
    print(f"# {title}")
    print(
        f"{os.cpu_count()} cores {cpu}{flags}, {torch.get_num_threads()} threads, torch "
        f"{torch.__version__}, seed {options.seed}, ours in {options.precision}"
    )
    if source:
        print(source)


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a Markdown table; numbers keep three significant digits."""
    cells = [[_shown(value) for value in row] for row in rows]
    widths = [max(len(c), *(len(r[i]) for r in cells)) for i, c in enumerate(columns)]
    for row in [list(columns), ["-" * w for w in widths], *cells]:
        print("| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths)) + " |")
    print(flush=True)


def _shown(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def top_operators(title: str, call: Callable[[], Any], rows: int = 8) -> None:
    """Print the operators that take most of the time of ``call``, each without its callees."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as profile:
        call()
    events = sorted(profile.key_averages(), key=lambda e: -e.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    print(f"Top operators: {title}")
    shown = [
        (e.key, e.count, e.self_cpu_time_total / 1000, f"{e.self_cpu_time_total / total:.0%}")
        for e in events[:rows]
    ]
    table(("operator", "calls", "ms", "share"), shown)


def precision_of(options: argparse.Namespace, name: str | None = None) -> Any:
    """Return the autocast context of ``--precision``, or of the precision ``name``."""
    return autocast(PRECISIONS[name or options.precision], CPU)


class FirstBatches:
    """The first batches of every epoch; the number of an epoch's batches stays."""

    def __init__(self, batches: Any, count: int) -> None:
        self.batches, self.count = batches, count

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, epoch: int) -> Iterator[Any]:
        return itertools.islice(self.batches.epoch(epoch), self.count)
