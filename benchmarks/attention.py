"""Similarity-enhanced self-attention: its price in time and memory.

A training step of BBQRec (M = 3) without it, with it, and with the naive form that materialises
an embedding for every pair of tokens; each in a process of its own, so that its peak memory is its
own. "typical" is batches of an epoch on real Beauty (256 targets), "full" is 13 users of 20
items, "wide" 64 of them.

    python benchmarks/attention.py --data-path <folder that holds Beauty/> [--small]
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from typing import Any

import common
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from recbole_bbqrec.data.histories import HistoryBatch, HistoryBatches
from recbole_bbqrec.generator.network import attention
from recbole_bbqrec.nn.optim import build_optimizer

FORMS = ("plain", "similarity", "naive")


def naive_attend(
    q: Tensor, k: Tensor, v: Tensor, bias: Any, table: Tensor, buckets: Tensor, causal: bool
) -> Tensor:
    """Eq. 16 and 17 as written: [B, H, T * L, T * L, C] in memory."""
    levels = q.shape[2] // buckets.shape[1]
    weights = attention._weights(q, k, bias).to(v.dtype)  # [B, H, T * L, T * L]
    pair = buckets.repeat_interleave(levels, 1).repeat_interleave(levels, 2)
    gate = torch.stack([head.to(v.dtype)[pair] for head in table], dim=1)
    return (weights.unsqueeze(-1) * gate * v.unsqueeze(2)).sum(3)


def workloads(options: argparse.Namespace) -> dict[str, list[HistoryBatch]]:
    events, n_items, _ = common.load_events(options)
    histories = common.training_histories(events)
    batches = HistoryBatches(histories, batch_size=256, seed=options.seed)
    typical = list(itertools.islice(batches.epoch(0), 4 if options.small else 30))

    def full(users: int) -> list[HistoryBatch]:
        items = torch.randint(1, n_items, (users, 21))
        lengths = torch.full((users,), 20)
        return [HistoryBatch(items[:, :-1], items[:, 1:], lengths)] * 5

    return {"typical": typical, "full": full(13), "wide": full(64)}


def measure(options: argparse.Namespace, form: str, workload: str) -> tuple[float, float]:
    """Milliseconds a step and MiB by which training raised the process's memory."""
    common.start(options)
    batches = workloads(options)[workload]
    if form == "naive":
        attention.similarity_attend = naive_attend
    n_items = common.load_events(options)[1]
    catalogue = common.random_catalogue(n_items, 3, options.seed, vectors=form != "plain")
    generator = common.generator_of(catalogue).train()
    parameters = list(generator.parameters())
    optimizer = build_optimizer(
        generator.named_parameters(), learning_rate=1e-3, weight_decay=0.05, undecayed=()
    )

    def step(batch: Any) -> float:
        begin = time.perf_counter()
        with common.precision_of(options):
            loss, _ = generator.loss(catalogue, batch.items, batch.targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return time.perf_counter() - begin

    def train() -> float:
        for batch in batches[:3]:
            step(batch)
        passes = [sum(step(batch) for batch in batches) / len(batches) for _ in range(3)]
        return statistics.median(passes)

    seconds, memory = common.peak_growth(train)
    if form == "similarity" and workload == "typical":
        common.heading("Similarity attention", options)
        common.top_operators("similarity, typical", lambda: [step(b) for b in batches[:10]])
    return 1000 * seconds, memory


def main() -> None:
    options = common.arguments(__doc__)
    rows = []
    for workload in ("typical", "full", "wide"):
        found = {form: common.in_child(measure, options, form, workload) for form in FORMS}
        plain = found["plain"]
        for form, (ms, memory) in found.items():
            rows.append((workload, form, ms, ms / plain[0], memory, memory / plain[1]))
    common.table(("batch", "attention", "ms a step", "x plain", "MiB", "x plain"), rows)


if __name__ == "__main__":
    main()
