"""Cost of training and of ranking with the default network, by formula.

The formulas count multiplications and additions of matrix products (2 FLOPs each), bytes of
parameters, optimizer and large tables, and bytes that have to be moved at the least. They are those
of the code: ``tests/package/test_cost.py`` compares a step's FLOPs with torch's counter.

    python benchmarks/cost.py [--events 198502 --users 22363 --items 12101] [--measured 20]
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import common

from recbole_bbqrec.generator.head.sampled_head import SAMPLED_FROM
from recbole_bbqrec.generator.inference.shortlist import GROUPS_PER_BEAM
from recbole_bbqrec.generator.settings import GeneratorSettings

FLOAT = 4  # bytes of a number
#: Peak TFLOP/s and TB/s of memory: of one core as measured here, and of an H100 in bf16.
CPU, GPU = (0.03, 0.007), (989.0, 3.35)
REACHED = 0.2  # share of a GPU's peak that small products reach
LAUNCHES = 750  # operators of a step, counted
LAUNCH = 33e-6  # seconds for one, with its Python and backward pass; measured beside an H200
LINKS = {"NVLink": 450e9, "400 Gbit/s between machines": 50e9}  # bytes/s each way


@dataclass(frozen=True)
class Batch:
    """Sizes of a step: histories of up to ``width`` items, ``cells`` items in all, ``targets``.

    * ``rows``: decoder rows, from 1 to L a target; ``grid``: the most rows of a history.
    * ``open``: of each level, the targets with a choice there.
    * ``keys``, ``scored``: items whose keys are computed, and that every target is scored with.
    """

    histories: int
    width: int
    cells: int
    targets: int
    rows: int
    grid: int
    open: tuple[int, ...]
    keys: int
    scored: int

    @classmethod
    def typical(cls, config: GeneratorSettings, n_items: int, targets: int, length: float) -> Batch:
        """Make a batch of ``targets`` in histories of a mean ``length``.

        Codes are as trained ones: half the targets have siblings at the second level, none later.
        """
        histories = max(1, round(targets / length))
        sampled = n_items >= SAMPLED_FROM
        scored = (
            min(n_items, config.item_head_samples + histories + targets) if sampled else n_items
        )
        open_ = (targets, targets // 2, *[0] * (config.levels - 2))[: config.levels]
        rows = targets + targets // 2
        keys = min(n_items, scored + (targets * 15 if sampled else 0))
        return cls(histories, min(config.max_history, round(1.3 * length)), targets, targets, rows,
                   round(1.3 * rows / histories), open_, keys, scored)  # fmt: skip


def step_flops(c: GeneratorSettings, b: Batch) -> dict[str, float]:
    """Count the FLOPs of the forward pass by part; ``head`` includes its own gradient products."""
    d, m, level_tokens = c.hidden_size, c.n_signals, c.history_levels
    tokens, span = b.cells * level_tokens, b.width * level_tokens
    maps = 4 * d * d + 2 * d * c.inner_size  # qkv, output, feed-forward
    attention = 4 * b.histories * span * span * d  # products with keys and with values
    encoder = c.encoder_layers * (2 * tokens * maps + attention)
    similarity = 2 * b.histories * b.width * b.width * c.vector_dim if c.similarity else 0
    cross = 2 * tokens * d * 2 * d + 2 * b.rows * 2 * d * d
    cross += 4 * b.histories * b.grid * span * d
    decoder = c.decoder_layers * (2 * b.rows * maps + cross)
    if c.decoder_start == "history":
        decoder += 2 * b.cells * level_tokens * d * d
    codes = sum(2 * n * d * m * c.codebook_size for n in b.open)
    table = 2 * m * c.levels * c.codebook_size * c.code_dim * d
    features = 2 * b.cells * c.feature_dim * d
    keys = 2 * b.keys * (c.feature_dim or c.vector_dim) * d
    return {
        "encoder": encoder, "similarity": similarity, "decoder": decoder, "code heads": codes,
        "code table": table, "features": features, "item keys": keys,
        "item scores": 2 * b.targets * b.scored * d,
    }  # fmt: skip


def training_flops(c: GeneratorSettings, b: Batch) -> float:
    """Count a step with gradients: a product of two learned things has two more of its size.

    Features and vectors are given, so that their maps have one more, and similarities none.
    """
    times = {"similarity": 1, "features": 2, "item keys": 2}
    return sum(times.get(part, 3) * flops for part, flops in step_flops(c, b).items())


def parameters(c: GeneratorSettings) -> dict[str, int]:
    """Count the parameters of the default network: of the items' embeddings, and all others."""
    d, columns = c.hidden_size, c.n_signals * c.codebook_size
    layer = 4 * d * d + 2 * d * c.inner_size + 9 * d + c.inner_size  # maps, biases, norms
    gates = (c.similarity_buckets + 1) * d if c.similarity else 0
    rest = c.encoder_layers * (layer + gates) + c.decoder_layers * (layer + 4 * d * d + 6 * d)
    rest += c.levels * columns * c.code_dim + c.n_signals * c.code_dim * d  # code embeddings
    rest += c.levels * columns * (d + 1)  # code heads
    rest += 2 * c.feature_dim * d  # features, content of the item head
    rest += c.history_levels * d * d + d  # start
    rest += (c.max_history + c.history_levels + c.levels + 8) * d + c.max_history
    return {"items": c.n_items * d if c.item_embedding else 0, "rest": rest}


def step_bytes(c: GeneratorSettings, b: Batch) -> float:
    """Count bytes that a step moves at the least.

    AdamW reads weight, gradient and two means and writes three of them; clipping reads and scales
    the gradient, the backward pass fills it with zeros: 11 numbers a parameter. Keys are written,
    and read and written with their gradients; scores twice each; features are read once.
    """
    weights = 11 * FLOAT * sum(parameters(c).values())
    keys = FLOAT * b.keys * (4 * c.hidden_size + (c.feature_dim or c.vector_dim))
    scores = FLOAT * 4 * b.targets * b.scored
    activations = FLOAT * 30 * (b.cells * c.encoder_layers + b.rows) * c.hidden_size
    return float(weights + keys + scores + activations)


def memory(c: GeneratorSettings, b: Batch) -> float:
    """Count bytes held: weights, gradients, two means, features twice (by id and by leaf), keys."""
    held = 4 * FLOAT * sum(parameters(c).values())
    copies = 1 if b.scored < b.keys or b.keys < c.n_items - 1 else 2
    features = copies * FLOAT * c.n_items * (c.feature_dim or c.vector_dim)
    trie = 8 * c.n_items * (2 * c.levels + 4)
    keys = 3 * FLOAT * b.keys * c.hidden_size
    scores = FLOAT * 3 * min(b.targets * b.scored, 1 << 23)
    return float(held + features + trie + keys + scores)


def user_flops(c: GeneratorSettings, length: int, beams: int) -> float:
    """Count the FLOPs of a user's list: history, item scores, and two decoded levels.

    With a shortlist groups are scored in place of items, and some a beam of 15 items each.
    """
    n_items = c.n_items - 1
    one = Batch(1, length, length, 1, 1 + beams, 1 + beams, (1, beams), 0, 0)
    groups = min(n_items // 2, c.codebook_size ** min(2, c.n_signals))
    listed = groups + GROUPS_PER_BEAM * beams * 15
    scored = listed if c.item_head_ranking == "shortlist" else n_items
    parts = step_flops(c, one)
    del parts["code table"], parts["item keys"]
    return sum(parts.values()) + 2 * scored * c.hidden_size


def rent(
    c: GeneratorSettings, users: int, events: int, targets: int, beams: int
) -> list[list[str]]:
    """Return the rows of the table."""
    length = events / users
    n_targets = events - 3 * users  # the first event of a user and the last two are no targets
    b = Batch.typical(c, c.n_items - 1, targets, min(length - 3, c.max_history))
    steps, flops, moved = n_targets / targets, training_flops(c, b), step_bytes(c, b)
    per_user = user_flops(c, round(min(length, c.max_history)), beams)
    params = sum(parameters(c).values())
    rows = [
        ["parameters", f"{params / 1e6:,.1f} M"],
        ["memory of training", f"{memory(c, b) / 2**30:,.2f} GiB"],
        ["steps an epoch", f"{steps:,.0f}"],
        ["FLOPs a step", f"{flops / 1e9:,.1f} G"],
        ["bytes moved a step", f"{moved / 1e9:,.2f} GB"],
        ["FLOPs an epoch", f"{flops * steps / 1e12:,.1f} T"],
        ["bytes moved an epoch", f"{moved * steps / 1e12:,.2f} TB"],
        ["FLOPs a user decoded", f"{per_user / 1e6:,.1f} M"],
    ]
    update = 11 * FLOAT * params / (GPU[1] * 1e12)  # each of 8 updates all parameters
    message = 2 * 7 / 8 * FLOAT * params  # ring all-reduce of 8 processes
    on_gpu = {
        "products": flops / (GPU[0] * REACHED * 1e12), "memory": moved / (GPU[1] * 1e12),
        "launches": LAUNCHES * LAUNCH,
    }  # fmt: skip
    of_eight = max(on_gpu["products"] / 8, update, on_gpu["launches"])
    on_cpu = {"products": flops / (CPU[0] * 1e12), "memory": moved / (CPU[1] * 1e12)}
    for name, each in (("1 CPU core", on_cpu), ("1 GPU", on_gpu)):
        bound = max(each, key=lambda part: each[part])
        rows.append([f"{name}: an epoch, bound by {bound}", _time(each[bound] * steps)])
    rows.append(["1 CPU core: lists of all users", _time(users * per_user / (CPU[0] * 1e12))])
    rows.append(["8 GPUs: sent by each a step", f"{message / 1e6:,.1f} MB"])
    for link, speed in LINKS.items():
        rows.append([f"8 GPUs, {link}: an epoch", _time((of_eight + message / speed) * steps)])
    return rows


def _time(seconds: float) -> str:
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:,.2f} s"


def default(n_items: int) -> GeneratorSettings:
    """Return the default network with an ID signal and two modalities."""
    return GeneratorSettings(
        n_signals=3, n_items=n_items + 1, vector_dim=3 * 128, feature_dim=2 * 512
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--users", type=int, default=22_363)
    parser.add_argument("--events", type=int, default=198_502)
    parser.add_argument("--items", type=int, default=12_101)
    parser.add_argument("--batch", type=int, default=256, help="targets of a step")
    parser.add_argument("--beams", type=int, default=50)
    o = parser.parse_args()
    print(f"{o.users:,} users, {o.events:,} events, {o.items:,} items, {o.batch} targets a step")
    common.table(("what", "cost"), rent(default(o.items), o.users, o.events, o.batch, o.beams))


if __name__ == "__main__":
    main()
