"""Phase one: seconds per step and per epoch, by part.

BBQRec's tokenizer at its default size, on the items and histories of Beauty. Features are random,
in the width of the real ones (text 768, image 4096): their values do not affect the time.

    python benchmarks/tokenizer.py --data-path <folder that holds Beauty/> [--small]
"""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from typing import Any

import common
import torch

from recbole_bbqrec.data.histories import HistoryBatches
from recbole_bbqrec.nn.optim import build_optimizer
from recbole_bbqrec.tokenizer.bbq.tokenizer import BBQSettings, BBQTokenizer
from recbole_bbqrec.tokenizer.collisions import resolve_collisions

BATCH, INNER_STEPS = 256, 5


class Steps:
    """The step of :class:`TokenizePhase` with a clock between its parts."""

    def __init__(self, options: Any, network: BBQTokenizer) -> None:
        self.options, self.network = options, network
        own = {id(p) for p in network.main_parameters()}
        named = ((n, p) for n, p in network.named_parameters() if id(p) in own)
        self.optimizer = build_optimizer(named, learning_rate=1e-3, weight_decay=1e-4)
        self.estimator = torch.optim.Adam(list(network.estimator_parameters()), lr=1e-3)
        self.spent: dict[str, float] = defaultdict(float)
        self.clock = 0.0

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.spent[name] += now - self.clock
        self.clock = now

    def __call__(self, batch: Any, extra: torch.Tensor) -> None:
        self.clock = time.perf_counter()
        items = torch.cat([batch.items.flatten(), batch.targets.flatten(), extra])
        items = torch.unique(items[items > 0])
        with common.precision_of(self.options):
            pairs = self.network.mim_pairs(items[torch.randperm(len(items))[:BATCH]])
            for _ in range(INNER_STEPS):
                self.estimator.zero_grad(set_to_none=True)
                self.network.estimator_loss(pairs).backward()
                self.estimator.step()
            self.lap("estimator (5 likelihood steps)")
            total = self.network.losses(items, batch.items, batch.targets)["total"]
            self.lap("forward")
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        self.lap("backward")
        self.optimizer.step()
        self.lap("optimizer")


def main() -> None:
    options = common.arguments(__doc__, steps=30, text=768, image=4096)
    events, n_items, source = common.load_events(options)
    histories = common.training_histories(events)
    batches = HistoryBatches(histories, batch_size=BATCH, unit="histories", seed=options.seed)
    common.heading("Phase one", options, source)
    present = torch.ones(n_items, dtype=torch.bool)
    present[0] = False
    widths = {"text": options.text, "image": options.image}
    features = {name: (torch.randn(n_items, width), present) for name, width in widths.items()}
    trained = histories.trained_items(n_items)
    network = BBQTokenizer(BBQSettings(), features, n_items, trained).train()
    print(f"{common.parameters_in_millions(network)}, {len(batches)} steps an epoch\n")
    network.prepare(options.seed)
    start = time.perf_counter()
    network.initialise_codebooks(options.seed)
    k_means = time.perf_counter() - start

    step = Steps(options, network)
    count = 3 if options.small else options.steps
    slices = torch.tensor_split(torch.randperm(n_items - 1) + 1, len(batches))
    sample = list(itertools.islice(zip(batches.epoch(0), slices), count + 2))
    for batch, extra in sample[:2]:
        step(batch, extra)
    step.spent.clear()
    for batch, extra in sample[2:]:
        step(batch, extra)
    total = sum(step.spent.values())
    n = len(sample) - 2
    rows = [
        (name, 1000 * spent / n, spent / n * len(batches), f"{spent / total:.0%}")
        for name, spent in [*step.spent.items(), ("step", total)]
    ]
    common.table(("part", "ms a step", "s an epoch", "share"), rows)
    start = time.perf_counter()
    result = network.eval().tokenize()
    tokenized = time.perf_counter() - start
    start = time.perf_counter()
    resolve_collisions(result.codes, result.last_level_distances)
    resolved = time.perf_counter() - start
    print(
        f"k-means of the codebooks {k_means:.1f} s; tokenizing all items {tokenized:.2f} s; "
        f"making the IDs unique {resolved:.2f} s\n"
    )
    network.train()
    common.top_operators("10 steps", lambda: [step(*pair) for pair in sample[:10]], 16)


if __name__ == "__main__":
    main()
