"""Decoding: users a second and single-user latency, ours against Hugging Face ``generate``.

Same weights shape (2+2 layers, d 128), same semantic IDs (M = 1), same test users of real Beauty,
top 10. The reference runs in batches of 32 users (its speed a user hardly depends on that) over a
sample of them; ours over ``--users`` users in length-sorted chunks as in evaluation. BBQRec's own
form (M = 3, similarity) decodes the wider trie and is shown beside.

    python benchmarks/decode.py --data-path <folder that holds Beauty/> [--small]
"""

from __future__ import annotations

from functools import partial
from typing import Any

import common
import t5
import torch
from torch import Tensor

from recbole_bbqrec.generator.inference.ranking import rank
from recbole_bbqrec.generator.items.catalogue import Catalogue
from recbole_bbqrec.generator.network.seq2seq import Generator

BEAMS, TOP = (10, 20, 50, 100), 10
THEIR_BATCH = 32
ROWS = 128  # users at once
REFERENCE = "2+2, 4x32, ff 512"


def recommend(
    generator: Generator,
    catalogue: Catalogue,
    items: Tensor,
    beams: int,
    precision: str,
    rows: int = ROWS,
) -> Tensor:
    """Rank as evaluation does."""
    return rank(generator, catalogue, items, beams, common.PRECISIONS[precision], rows)[0][:, :TOP]


def reference(codes: Tensor, items: Tensor) -> dict[Any, float]:
    """Seconds a user of the reference: beams -> batch of 32, and ("one", beams) -> alone."""
    model, trie = t5.build(REFERENCE).eval(), t5.DictTrie(codes)
    rows, mask = t5.tokens(codes, items)
    found: dict[Any, float] = {}
    for beams in BEAMS:
        some = rows[:THEIR_BATCH], mask[:THEIR_BATCH]
        batch = partial(t5.decode, model, trie, *some, beams, TOP)
        found[beams] = common.seconds(batch, 1 if beams > 20 else 3, 0) / THEIR_BATCH
        used = int(mask[0].sum())  # one user needs no padding
        alone = rows[:1, :used], mask[:1, :used]
        found["one", beams] = common.seconds(partial(t5.decode, model, trie, *alone, beams, TOP), 7)
    return found


def main() -> None:
    options = common.arguments(__doc__, users=2048)
    events, n_items, source = common.load_events(options)
    items = common.test_histories(events)[0]
    items = items[torch.randperm(len(items))[: 128 if options.small else options.users]]
    common.heading(f"Decoding, top {TOP}", options, f"{len(items)} test users of {source}\n")
    one = common.random_catalogue(n_items, 1, options.seed, vectors=False)
    three = common.random_catalogue(n_items, 3, options.seed)
    featured = common.random_catalogue(
        n_items, 3, options.seed, feature_dim=common.DEFAULT["feature_dim"]
    )
    default = common.generator_of(featured, n_items=n_items, **common.DEFAULT).eval()
    networks = {
        ("ours, M=1", "float32"): (common.generator_of(one).eval(), one),
        ("ours, M=1", "bfloat16"): (common.generator_of(one).eval(), one),
        ("BBQRec, M=3", "float32"): (common.generator_of(three).eval(), three),
        ("BBQRec, M=3", "bfloat16"): (common.generator_of(three).eval(), three),
        ("BBQRec by default", "float32"): (default, featured),
        ("BBQRec by default", "bfloat16"): (default, featured),
    }
    theirs = reference(one.codes, items)
    many, alone = [], []
    for beams in BEAMS:
        many.append((f"HF T5 {REFERENCE}", "float32", beams, 1 / theirs[beams], 1.0))
        alone.append((f"HF T5 {REFERENCE}", "float32", beams, 1000 * theirs["one", beams], 1.0))
        for (name, precision), (generator, catalogue) in networks.items():
            args = generator, catalogue
            total = common.seconds(partial(recommend, *args, items, beams, precision), 2, 1)
            each = total / len(items)
            many.append((name, precision, beams, 1 / each, theirs[beams] / each))
            single = common.seconds(partial(recommend, *args, items[:1], beams, precision), 15, 3)
            alone.append((name, precision, beams, 1000 * single, theirs["one", beams] / single))
    common.table(("network", "precision", "beams", "users/s", "x reference"), many)
    print("Single user")
    common.table(("network", "precision", "beams", "ms", "x reference"), alone)
    generator, catalogue = networks["BBQRec, M=3", options.precision]
    for rows in (32, 64, 128, 256, 512):
        run = partial(recommend, generator, catalogue, items, 50, options.precision, rows)
        took = common.seconds(run, 1, 0)
        print(f"BBQRec, beam 50, {rows} users at once: {len(items) / took:.0f} users/s")
    print()
    for label, some in ((f"{len(items)} users", items), ("one user", items[:1])):
        common.top_operators(
            f"BBQRec, beam 50, {label}",
            partial(recommend, generator, catalogue, some, 50, options.precision),
            14,
        )


if __name__ == "__main__":
    main()
