"""Catalogue size: building the trie of a million items, and decoding over it.

Semantic IDs are drawn uniformly (M = 3), so that nearly every item is a first-level node: the
hardest first level there is. Weights are drawn at random and scaled up, so that predictions are as
peaked as those of a trained network. ``--certify`` users' top 10 of the beam is compared with the
exhaustive scores of all items, for both losses: with "item", whose scores the first level settles
in so flat a trie, the beam must find it; with "code" a beam can lose an item at a narrow level
whatever the catalogue's size.

    python benchmarks/scale.py [--small]
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import common
import torch

from recbole_bbqrec.generator.inference.beam import beam_search
from recbole_bbqrec.generator.inference.encoding import encode
from recbole_bbqrec.generator.inference.exact import exact_scores
from recbole_bbqrec.generator.items.catalogue import Catalogue
from recbole_bbqrec.generator.items.trie import Trie
from recbole_bbqrec.generator.network.seq2seq import Generator

BEAMS, TOP, ROWS = 50, 10, 256


def build(options: argparse.Namespace, n_items: int) -> tuple[float, float, float]:
    """Seconds and MiB of building the trie, and the MiB that it then holds."""
    common.start(options)
    codes = torch.randint(0, common.CODES, (n_items + 1, common.LEVELS, 3))
    # A first, small build pays for starting torch's thread pool.
    Trie.build(codes[:1000], common.CODES)
    begin = time.perf_counter()
    trie, memory = common.peak_growth(lambda: Trie.build(codes, common.CODES))
    seconds = time.perf_counter() - begin
    held = 0
    for value in vars(trie).values():
        tensors = value if isinstance(value, tuple) else (value,)
        held += sum(t.numel() * t.element_size() for t in tensors if isinstance(t, torch.Tensor))
    return seconds, memory, held / 2**20


def network(catalogue: Catalogue, loss: str) -> Generator:
    """Random weights with logits of a spread like a trained network's."""
    torch.manual_seed(1)
    generator = common.generator_of(catalogue, generation_loss=loss).eval()
    with torch.no_grad():
        generator.decoder.head.weight.mul_(60)
        generator.decoder.head.weight[0].mul_(3)
    return generator


def decoding(options: argparse.Namespace, n_items: int) -> dict[str, Any]:
    """Milliseconds a user, operators, and how the beam's top 10 compares with exhaustive scores."""
    common.start(options)
    catalogue = common.random_catalogue(n_items + 1, 3, options.seed, vectors=False)
    generator = network(catalogue, "code")
    items = torch.randint(1, n_items + 1, (ROWS, 8))

    def decode(rows: int = ROWS) -> Any:
        memory = encode(generator, catalogue, items[:rows])
        return beam_search(generator, catalogue, memory, BEAMS)

    with torch.no_grad(), common.precision_of(options):
        each = common.seconds(decode, 3) / ROWS
        alone = common.seconds(lambda: decode(1), 9, 2)
        print(f"{n_items} items")
        common.top_operators(f"{ROWS} users, beam {BEAMS}", decode, 8)
    found = {"ms": 1000 * each, "alone": 1000 * alone}
    return {
        **found,
        **{loss: agreement(catalogue, loss, items[: options.certify]) for loss in ("code", "item")},
    }


@torch.no_grad()
def agreement(catalogue: Catalogue, loss: str, items: torch.Tensor) -> str:
    """Count the ten best of all items that the beam returns among its first ten (float32)."""
    generator = network(catalogue, loss)
    same = 0
    for user in items.split(1):
        memory = encode(generator, catalogue, user)
        found = beam_search(generator, catalogue, memory, BEAMS)[0][0, :TOP]
        best = exact_scores(generator, catalogue, memory, chunk=4096)[0].topk(TOP).indices
        same += int(torch.isin(best, found).sum())
    return f"{same}/{TOP * len(items)}"


def main() -> None:
    options = common.arguments(__doc__, certify=1)
    common.heading("Catalogue size", options)
    sizes = (1000, 10_000) if options.small else (10_000, 100_000, 1_000_000)
    built = {n: common.in_child(build, options, n) for n in sizes}
    common.table(("items", "trie s", "peak MiB", "MiB held"), [(n, *built[n]) for n in sizes])
    found = {n: common.in_child(decoding, options, n) for n in sizes}
    first = found[sizes[0]]
    common.table(
        ("items", f"ms a user, {ROWS} at once", f"x {sizes[0]}", "ms, one user", f"x {sizes[0]}",
         "of exhaustive top 10: code", "item"),
        [
            (n, f["ms"], f["ms"] / first["ms"], f["alone"], f["alone"] / first["alone"],
             f["code"], f["item"])
            for n, f in found.items()
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
