"""Catalogue size with the default network: neighbours, trie, a training step, decoding.

The catalogue is structured as a trained one is. Each of ``--signals`` signals has features of 64
dimensions, a sum of three centres (of sizes 1, .6 and .36: the codes of the three levels) and noise
of size .3; of half of the items the second signal's first code is one of 64 that go with the first
one's. A user stays with the first-level token of the item before with probability .7. The network,
default but for its feature width, is trained for ``--steps`` steps of 256 targets from random
weights, by the full item head below 200,000 items and by the sampled one above. Then users are
decoded:

* equal to all: users whose top 10 is that of the same beam with the scores of all items;
* exhaustive: of the top 10 of exhaustive scores, how many are among the beam's first ten.

    python benchmarks/catalogue.py [--small] [--sizes 10000,1000000] [--skip neighbours,...]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from typing import Any

import common
import neighbours
import torch

from recbole_bbqrec.generator.head.sampled_head import is_sampled
from recbole_bbqrec.generator.inference import compiled_weights
from recbole_bbqrec.generator.inference.beam import beam_search
from recbole_bbqrec.generator.inference.encoding import encode
from recbole_bbqrec.generator.inference.exact import exact_scores
from recbole_bbqrec.generator.items.catalogue import Catalogue
from recbole_bbqrec.generator.items.trie import Trie
from recbole_bbqrec.generator.network.seq2seq import Generator
from recbole_bbqrec.nn import optim

WIDTH, HISTORY, TOP = 64, 8, 10
PARTS = ("neighbours", "trie", "network")


def structured(n_items: int, signals: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw codes int64 [n_items + 1, L, M] and features [n_items + 1, M * WIDTH]."""
    generator = torch.Generator().manual_seed(seed)
    shape = (n_items + 1, common.LEVELS, signals)
    codes = torch.randint(0, common.CODES, shape, generator=generator)
    follows = torch.rand(n_items + 1, generator=generator) < 0.5
    codes[follows, 0, 1] = (codes[follows, 0, 0] * 7 + codes[follows, 1, 0] % 64) % common.CODES
    features = torch.empty(n_items + 1, signals * WIDTH)
    for signal in range(signals):
        part = 0.3 * torch.randn(n_items + 1, WIDTH, generator=generator)
        for level in range(common.LEVELS):
            centres = torch.randn(common.CODES, WIDTH, generator=generator) * 0.6**level
            part += centres[codes[:, level, signal]]
        features[:, signal * WIDTH : (signal + 1) * WIDTH] = part / part.pow(2).mean().sqrt()
    codes[0], features[0] = 0, 0
    return codes, features


def walks(catalogue: Catalogue, n: int, seed: int) -> torch.Tensor:
    """Draw users' items: int64 [n, HISTORY + 1]."""
    generator, trie = torch.Generator().manual_seed(seed), catalogue.trie
    pointer, total = trie.item_ptr(0), len(trie.leaf_items)
    place = torch.randint(total, (n,), generator=generator)
    columns = [place]
    for _ in range(HISTORY):
        node = trie.item_nodes[trie.leaf_items[place], 0]
        first, count = pointer[node], pointer[node + 1] - pointer[node]
        inside = first + (torch.rand(n, generator=generator) * count).long()
        stays = torch.rand(n, generator=generator) < 0.7
        place = torch.where(stays, inside, torch.randint(total, (n,), generator=generator))
        columns.append(place)
    return trie.leaf_items[torch.stack(columns, 1)]


def trie(options: argparse.Namespace, n_items: int) -> tuple[float, float]:
    """Measure seconds and MiB of building the trie."""
    common.start(options)
    codes, _ = structured(n_items, options.signals, options.seed)
    Trie.build(codes[:1000], common.CODES)
    begin = time.perf_counter()
    _, memory = common.peak_growth(lambda: Trie.build(codes, common.CODES))
    return time.perf_counter() - begin, memory


def network(options: argparse.Namespace, n_items: int) -> dict[str, Any]:
    """Train a little, and measure a step and decoding."""
    common.start(options)
    codes, features = structured(n_items, options.signals, options.seed)
    catalogue = Catalogue.build(codes, features, common.CODES, features=features)
    settings = {
        **common.DEFAULT, "feature_dim": features.shape[1], "n_items": n_items + 1, "dropout": 0.3,
        "vector_dim": features.shape[1],
    }  # fmt: skip
    generator = common.generator_of(catalogue, **settings)
    step, memory = common.peak_growth(lambda: train(options, catalogue, generator))
    sampled = is_sampled(generator.config, catalogue.trie)
    generator.eval()
    history = walks(catalogue, options.users, options.seed + 1)[:, :HISTORY]
    return {
        "step": step, "memory": memory, "sampled": "sampled" if sampled else "full",
        "nodes": len(catalogue.trie.codes[0]),
        **decoding(options, catalogue, generator, history),
    }  # fmt: skip


def train(options: argparse.Namespace, catalogue: Catalogue, generator: Generator) -> float:
    """Return the median seconds of a step of 256 targets."""
    generator.train()
    optimizer = optim.build_optimizer(
        generator.named_parameters(), learning_rate=2e-3, weight_decay=0.01
    )
    rows, taken = 256 // HISTORY, []
    users = walks(catalogue, rows * options.steps, options.seed)
    for batch in users.split(rows):
        begin = time.perf_counter()
        with common.precision_of(options):
            loss, _ = generator.loss(catalogue, batch[:, :HISTORY], batch[:, 1:])
        optim.step(loss, generator, optimizer, clip={"max_norm": 1.0})
        taken.append(time.perf_counter() - begin)
    print(f"{catalogue.n_items - 1} items: loss of the last step {float(loss.detach()):.2f}")
    return sorted(taken)[len(taken) // 2]


@torch.no_grad()
def decoding(
    options: argparse.Namespace, catalogue: Catalogue, generator: Generator, history: torch.Tensor
) -> dict[str, Any]:
    """Measure milliseconds a user, by `item_head_ranking`, and what it finds."""
    found, result = {}, {}
    for ranking in ("shortlist", "exact"):
        generator.config = replace(generator.config, item_head_ranking=ranking)
        compiled_weights.forget(generator)

        def decode() -> Any:
            memory = encode(generator, catalogue, history)
            return beam_search(generator, catalogue, memory, options.beams, TOP)

        with common.precision_of(options):
            found[ranking] = decode()[0].sort(1).values
            result[ranking] = 1000 * common.seconds(decode, 2, 0) / len(history)
        print(f"  item_head_ranking {ranking}: {result[ranking]:.2f} ms a user", flush=True)
    equal = (found["shortlist"] == found["exact"]).all(1)
    few, hits = history[: options.certify], 0
    for row in range(len(few)):
        memory = generator.encode(catalogue, few[row : row + 1])
        best = exact_scores(generator, catalogue, memory, chunk=8192)[0].topk(TOP).indices
        hits += int(torch.isin(best, found["shortlist"][row]).sum())
    exhaustive = f"{hits}/{TOP * len(few)}"
    return {**result, "equal": f"{float(equal.float().mean()):.1%}", "exhaustive": exhaustive}


def main() -> None:
    options = common.arguments(
        __doc__, sizes="10000,100000,1000000", steps=30, beams=50, certify=2, skip="", sample=200,
        width=128, signals=2, users=256,
    )  # fmt: skip
    sizes = [2000, 20_000] if options.small else [int(size) for size in options.sizes.split(",")]
    common.heading("Catalogue size, default network", options)
    for part in PARTS:
        if part in options.skip.split(","):
            continue
        if part == "neighbours":
            rows = [common.in_child(neighbours.measure, options, n) for n in sizes]
            header = ["items", "exact", "approximate", "ratio", "recall", "memory of the search"]
            common.table(header, rows)
        elif part == "trie":
            rows = [(f"{n:,}", *common.in_child(trie, options, n)) for n in sizes]
            common.table(("items", "trie, s", "peak MiB"), rows)
        else:
            found = {n: common.in_child(network, options, n) for n in sizes}
            first = found[sizes[0]]["shortlist"]
            common.table(
                ("items", "first-level nodes", "item head", "s a step", "peak MiB",
                 "ms a user", f"x {sizes[0]:,}", "ms, all items scored", "equal to all",
                 "exhaustive"),
                [(f"{n:,}", f["nodes"], f["sampled"], f["step"], f["memory"], f["shortlist"],
                  f["shortlist"] / first, f["exact"], f["equal"], f["exhaustive"])
                 for n, f in found.items()],
            )  # fmt: skip


if __name__ == "__main__":
    main()
