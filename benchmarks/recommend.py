"""A loaded run at work: users a second into a file, and the latency of one user's live session.

On any finished run; the figures in docs are of BBQRec on Beauty. Wall-clock seconds and
seconds of CPU are both printed: on a machine that computes other things, the latter say more.

    python benchmarks/recommend.py saved/RUN [--data-path FOLDER] [--threads 1] [--beams 20]
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from recbole_bbqrec import Session, load_run
from recbole_bbqrec.run_files.names import RunFiles
from recbole_bbqrec.runtime import tune_allocator
from recbole_bbqrec.serving.lists import ListOptions, write_lists


def lists(run, path: Path, **options) -> None:
    """Print users a second of one file of lists."""
    with tempfile.TemporaryDirectory() as folder:
        wall, cpu = time.perf_counter(), time.process_time()
        report = write_lists(
            run.recommender(), path, Path(folder) / "recs.parquet", ListOptions(**options)
        )
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    named = ", ".join(f"{name}={value}" for name, value in options.items())
    print(
        f"lists ({named}): {report.users:,} users in {wall:.1f} s, {report.users / wall:,.0f} a "
        f"second; {report.users / cpu:,.0f} a second of CPU"
    )


def session(run, events: int) -> None:
    """Print percentiles of an event and a list after it, one user."""
    tokens = run.recommender().item_tokens
    rng, wall, cpu = np.random.default_rng(0), [], []
    live = Session(run, [tokens[1]])
    live.recommend(k=20)
    for number in range(events):
        if number % 12 == 0:  # sessions of 1 to 12 items
            live = Session(live.recommender)
        token = tokens[rng.integers(1, len(tokens))]
        start, used = time.perf_counter(), time.process_time()
        live.add(token)
        live.recommend(k=20)
        wall.append(1000 * (time.perf_counter() - start))
        cpu.append(1000 * (time.process_time() - used))
    for name, values in (("wall-clock", wall), ("CPU", cpu)):
        middle, late = np.percentile(values, [50, 99])
        print(f"session, an event and 20 items ({name}): p50 {middle:.2f} ms, p99 {late:.2f} ms")


def profile(run) -> None:
    """Print where the time of a session goes."""
    live = Session(run, [run.recommender().item_tokens[1]])
    profiler = cProfile.Profile()
    profiler.enable()
    for number in range(2, 200):
        live.add(live.recommender.item_tokens[number])
        live.recommend(k=20)
    profiler.disable()
    pstats.Stats(profiler).sort_stats("tottime").print_stats(25)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--data-path", default=None)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--beams", type=int, default=20)
    parser.add_argument("--events", type=int, default=300)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    tune_allocator()
    overrides = {"num_beams": options.beams}
    if options.data_path:
        overrides["data_path"] = options.data_path
    run = load_run(options.run, overrides)
    if options.threads:
        torch.set_num_threads(options.threads)
    print(f"{run}, {torch.get_num_threads()} threads, {options.beams} beams")
    path = RunFiles.at(options.run).model
    lists(run, path, topk=20)
    lists(run, path, topk=20, exclude_seen=True)
    torch.set_num_threads(1)
    session(run, options.events)
    if options.profile:
        profile(run)


if __name__ == "__main__":
    main()
