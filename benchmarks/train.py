"""Phase-two training: a step and an epoch, ours against Hugging Face T5.

The reference trains one padded row per prefix, 256 rows a step, in float32, as the public TIGER and
LETTER codes do; a row in bfloat16 is shown beside it. Its epoch, and that of every row but the
one marked "measured", is the mean of timed steps times the number of steps. All networks share one
process, the tuned allocator included.

    python benchmarks/train.py --data-path <folder that holds Beauty/> [--small]
"""

from __future__ import annotations

import argparse
import itertools
import time
from typing import Any, Callable

import common
import t5
import torch
from torch.nn.utils import clip_grad_norm_

from recbole_bbqrec.data.histories import Histories, HistoryBatches
from recbole_bbqrec.generator.items.catalogue import Catalogue
from recbole_bbqrec.nn.optim import build_optimizer

BATCH = 256
DEFAULT_BATCH = 512  # `train_batch_size` of properties/model/BBQRec.yaml


def our_step(
    options: argparse.Namespace, catalogue: Catalogue, precision: str, **settings: Any
) -> Callable[[Any], None]:
    """A training step as :class:`GeneratePhase` takes it."""
    generator = common.generator_of(catalogue, **settings).train()
    parameters = list(generator.parameters())
    optimizer = build_optimizer(
        generator.named_parameters(), learning_rate=1e-3, weight_decay=0.05, undecayed=()
    )

    def step(batch: Any) -> None:
        with common.precision_of(options, precision):
            loss, _ = generator.loss(catalogue, batch.items, batch.targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    return step


def their_step(
    options: argparse.Namespace, codes: torch.Tensor, precision: str, shape: str
) -> Callable[[Any], None]:
    """A step of the recipe on a batch of :class:`HistoryBatches`, one prefix a row."""
    model = t5.build(shape).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step(batch: Any) -> None:
        rows, mask = t5.tokens(codes, batch.items)
        with common.precision_of(options, precision):
            loss = model(
                input_ids=rows, attention_mask=mask, labels=t5.labels(codes, batch.targets.amax(1))
            ).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def mean_step(step: Callable[[Any], None], batches: HistoryBatches, count: int) -> float:
    """Mean seconds of ``count`` steps of an epoch whose batches come in random order."""
    sample = list(itertools.islice(batches.epoch(0), count + 2))
    for batch in sample[:2]:
        step(batch)
    begin = time.perf_counter()
    for batch in sample[2:]:
        step(batch)
    return (time.perf_counter() - begin) / max(1, len(sample) - 2)


def whole_epoch(step: Callable[[Any], None], batches: HistoryBatches) -> float:
    begin = time.perf_counter()
    for batch in batches.epoch(1):
        step(batch)
    return time.perf_counter() - begin


def main() -> None:
    options = common.arguments(__doc__, steps=60, their_steps=4)
    events, n_items, source = common.load_events(options)
    histories: Histories = common.training_histories(events)
    kinds = {
        name: HistoryBatches(histories, batch_size=BATCH, encoding=name, seed=options.seed)
        for name in ("causal", "bidirectional")
    }
    common.heading("Training step and epoch", options, source)
    n_steps = len(kinds["causal"])
    print(f"{kinds['causal'].n_targets} prefixes, {n_steps} steps of {BATCH} targets an epoch\n")
    ours, theirs = (5, 2) if options.small else (options.steps, options.their_steps)

    one = common.random_catalogue(n_items, 1, options.seed, vectors=False)
    three = common.random_catalogue(n_items, 3, options.seed)
    rows: list[tuple[str, str, float, str]] = []

    def add(name: str, precision: str, step: Callable[[Any], None], kind: str, n: int) -> None:
        rows.append((name, precision, mean_step(step, kinds[kind], n), "extrapolated"))

    for shape in reversed(list(t5.SHAPES)):
        for precision in ("float32", "bfloat16"):
            step = their_step(options, one.codes, precision, shape)
            add(f"HF T5 {shape}", precision, step, "bidirectional", theirs)
    for precision in ("float32", "bfloat16"):
        for kind in ("bidirectional", "causal"):
            step = our_step(options, one, precision, history_encoding=kind)
            add(f"ours 2+2, M=1, {kind}", precision, step, kind, ours)
    for kind in ("bidirectional", "causal"):
        step = our_step(options, three, options.precision, history_encoding=kind)
        add(f"BBQRec (M=3, similarity), {kind}", options.precision, step, kind, ours)
    name = f"BBQRec (M=3, similarity), {kind}"
    rows.append((name, options.precision, whole_epoch(step, kinds[kind]) / n_steps, "measured"))
    featured = common.random_catalogue(
        n_items, 3, options.seed, feature_dim=common.DEFAULT["feature_dim"]
    )
    default = our_step(options, featured, options.precision, n_items=n_items, **common.DEFAULT)
    wide = HistoryBatches(histories, batch_size=DEFAULT_BATCH, encoding="causal", seed=options.seed)
    mean_step(default, wide, ours)  # as the others are warm when their epoch is measured
    name = f"BBQRec by default, batches of {DEFAULT_BATCH} (ms of {BATCH} targets)"
    rows.append((name, options.precision, whole_epoch(default, wide) / n_steps, "measured"))

    seconds = {(name, precision): value for name, precision, value, _ in rows}
    recipe = seconds["HF T5 4+4, 6x64, ff 1024", "float32"]
    same = {p: seconds["HF T5 2+2, 4x32, ff 512", p] for p in ("float32", "bfloat16")}
    common.table(
        ("network", "precision", "ms a step", "s an epoch", "epoch is", "x recipe (4+4 float32)",
         "x T5 2+2, same precision"),
        [
            (name, precision, 1000 * value, value * n_steps, how, recipe / value,
             same[precision] / value)
            for name, precision, value, how in rows
        ],
    )  # fmt: skip
    sample = list(itertools.islice(kinds["causal"].epoch(0), 10))
    common.top_operators("BBQRec, causal, 10 steps", lambda: [step(batch) for batch in sample], 16)


if __name__ == "__main__":
    main()
