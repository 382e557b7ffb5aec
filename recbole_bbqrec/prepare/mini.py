"""The Mini data set: small, synthetic, with a known structure.

Behaviour lives on 20 clusters, each a pair (theme, look). Users move from a cluster to itself or
to one of its successors, drawn to the themes and looks of their taste, and pick items of a
cluster by a long-tailed popularity. Text shows an item's theme and image its look, each under
style noise that behaviour ignores: either modality alone tells part of what decides the next
item, and both together all of it. Some items lack a modality.

Generated from a fixed seed by uniform and normal draws and elementwise arithmetic only, so the
same NumPy writes the same bytes: ``python -m recbole_bbqrec.prepare.mini --output dataset/Mini``.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from pathlib import Path

import numpy as np
import yaml

from recbole_bbqrec.atomic import atomic_path, sha256_of

NAME = "Mini"
DIM = 64  # width of either modality
_THEMES = ("lamp", "kettle", "tent", "guitar", "rug")
_LOOKS = ("amber", "striped", "slate", "floral")
_N_CLUSTERS = len(_THEMES) * len(_LOOKS)  # cluster = theme * len(_LOOKS) + look
_N_USERS, _N_ITEMS = 620, 420  # before 5-core filtering
_CORE = 5
_POPULARITY = 0.7  # Zipf exponent within a cluster
_STAY, _FOLLOW = 0.15, 0.65  # weights of staying and following; the rest follows taste alone
_SUCCESSORS = (0.75, 0.25)  # shares of a cluster's first and second successor
_STYLES, _STYLE_SCALE, _NOISE_SCALE = 6, 1.0, 0.5  # prototypes have scale 1
_FIRST_DAY, _DAYS = 19_723, 300  # 2024-01-01, and the days on which a user may begin
_SAME_DAY, _GAP = 0.03, 8.0  # share of events on the day of the one before; mean days otherwise
_MISSING = {"text": 0.02, "image": 0.04}


def make_mini(directory: str | os.PathLike[str], seed: int = 2025) -> None:
    """Write the data set's files into ``directory`` (created when absent).

    ``Mini.inter``, ``Mini.{text,image}.npy`` (float16 [rows, 64]) with ``.items.txt``,
    ``Mini.features.yaml`` and ``Mini.titles.tsv``.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    cluster = np.repeat(np.arange(_N_CLUSTERS), _N_ITEMS // _N_CLUSTERS)  # [n_items]
    popularity = _popularity(cluster)  # [n_items]
    sequences = _five_core(_sequences(rng, cluster, popularity))
    used = sorted({item for sequence in sequences for item in sequence})
    # Tokens carry no hint of the cluster: items are numbered in shuffled order.
    shuffled = np.argsort(rng.random(_N_ITEMS), kind="stable")
    token = {int(item): f"i{place + 1:04d}" for place, item in enumerate(shuffled)}
    catalogue = sorted(used, key=lambda item: token[item])

    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    times = _times(np.random.Generator(np.random.PCG64(seed + 1)), sequences)
    rows = [
        f"u{user + 1:04d}\t{token[item]}\t{order}\t{times[user][order]}"
        for user, sequence in enumerate(sequences)
        for order, item in enumerate(sequence)
    ]
    header = "user_id:token\titem_id:token\ttimestamp:float\tunix_time:float"
    _write(folder / f"{NAME}.inter", [header, *rows])
    titles = [
        f"{token[item]}\t{_LOOKS[cluster[item] % len(_LOOKS)]} "
        f"{_THEMES[cluster[item] // len(_LOOKS)]} {token[item][1:]}"
        for item in catalogue
    ]
    _write(folder / f"{NAME}.titles.tsv", ["item_id\ttitle", *titles])
    shown = {"text": cluster // len(_LOOKS), "image": cluster % len(_LOOKS)}
    described = {}
    for modality, part in shown.items():
        vectors, present = _features(rng, part, _MISSING[modality])
        kept = [item for item in catalogue if present[item]]
        _write(folder / f"{NAME}.{modality}.items.txt", [token[item] for item in kept])
        with atomic_path(folder / f"{NAME}.{modality}.npy") as path, open(path, "wb") as file:
            np.save(file, vectors[kept], allow_pickle=False)
        described[modality] = {
            "encoder": "synthetic",
            "recipe": "prototype of the theme (text) or look (image) + style + noise",
            "dimension": DIM,
            "items": len(kept),
            "sha256": sha256_of(folder / f"{NAME}.{modality}.npy"),
            "items_sha256": sha256_of(folder / f"{NAME}.{modality}.items.txt"),
        }
    content = yaml.safe_dump(described, sort_keys=False)
    _write(folder / f"{NAME}.features.yaml", content.splitlines())


def _popularity(cluster: np.ndarray) -> np.ndarray:
    """Return Zipf weights within each cluster, float64 [n_items]."""
    begins = np.searchsorted(cluster, cluster)  # first item of the own cluster
    return (np.arange(cluster.size) - begins + 1.0) ** -_POPULARITY


def _sequences(
    rng: np.random.Generator, cluster: np.ndarray, popularity: np.ndarray
) -> list[list[int]]:
    """Draw each user's items in time order, none twice."""
    follow = _transitions(rng)  # [n_clusters, n_clusters]
    # Longer than 5 with a geometric tail, at most 30: a mean of about 11.
    lengths = [5 + int(min(25, -6.5 * np.log1p(-u))) for u in rng.random(_N_USERS)]
    sequences = []
    for length in lengths:
        taste = _taste(rng)  # [n_clusters]
        weight = popularity.copy()  # [n_items], zero once taken
        here = _draw(rng, taste)
        sequence: list[int] = []
        while len(sequence) < length:
            item = _draw(rng, np.where(cluster == here, weight, 0.0))
            sequence.append(item)
            weight[item] = 0.0
            jump = (1 - _STAY - _FOLLOW) * taste / _N_CLUSTERS
            here = _draw(rng, follow[here] * (0.5 + taste) + jump)
        sequences.append(sequence)
    return sequences


def _times(rng: np.random.Generator, sequences: list[list[int]]) -> list[list[int]]:
    """Draw the Unix day of each event; few lie on the day of the one before."""
    times = []
    for sequence in sequences:
        first = int(rng.random() * _DAYS)
        draws = rng.random((2, len(sequence)))
        gaps = np.where(draws[0] < _SAME_DAY, 0, 1 - _GAP * np.log1p(-draws[1])).astype(np.int64)
        times.append(((_FIRST_DAY + first + np.cumsum(gaps)) * 86_400).tolist())
    return times


def _transitions(rng: np.random.Generator) -> np.ndarray:
    """Draw weights [n_clusters, n_clusters] of staying and of two successors on random cycles."""
    follow = np.eye(_N_CLUSTERS) * _STAY
    for share in _SUCCESSORS:
        cycle = np.argsort(rng.random(_N_CLUSTERS), kind="stable")
        follow[cycle, np.roll(cycle, -1)] += _FOLLOW * share
    return follow


def _taste(rng: np.random.Generator) -> np.ndarray:
    """Draw a user's weights of themes and looks over clusters [n_clusters], mean one."""
    theme = rng.random(len(_THEMES)) ** 3
    look = rng.random(len(_LOOKS)) ** 3
    taste = (0.1 + theme[:, None]) * (0.1 + look[None, :])  # [themes, looks]
    return (taste / taste.mean()).reshape(-1)


def _draw(rng: np.random.Generator, weight: np.ndarray) -> int:
    """Draw an index in proportion to ``weight``, by ``random`` only, whose stream is fixed."""
    total = np.cumsum(weight)
    index = np.searchsorted(total, rng.random() * total[-1], side="right")
    return int(min(index, np.flatnonzero(weight)[-1]))


def _five_core(sequences: list[list[int]]) -> list[list[int]]:
    """Drop items and users with fewer than five events until none is left to drop."""
    while True:
        count = Counter(item for sequence in sequences for item in sequence)
        kept = [[item for item in sequence if count[item] >= _CORE] for sequence in sequences]
        kept = [sequence for sequence in kept if len(sequence) >= _CORE]
        if kept == sequences:
            return kept
        sequences = kept


def _features(
    rng: np.random.Generator, part: np.ndarray, missing: float
) -> tuple[np.ndarray, np.ndarray]:
    """Draw vectors float16 [n_items, DIM] of ``part`` under style noise, and a mask [n_items]."""
    prototypes = rng.standard_normal((int(part.max()) + 1, DIM))
    styles = rng.standard_normal((_STYLES, DIM)) * _STYLE_SCALE
    style = (rng.random(part.size) * _STYLES).astype(np.int64)  # [n_items]
    noise = rng.standard_normal((part.size, DIM)) * _NOISE_SCALE
    present = rng.random(part.size) >= missing
    return (prototypes[part] + styles[style] + noise).astype(np.float16), present


def _write(path: Path, lines: list[str]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes("".join(line + "\n" for line in lines).encode("utf-8"))


def main() -> None:
    """Command line: ``python -m recbole_bbqrec.prepare.mini --output dataset/Mini``."""
    parser = argparse.ArgumentParser(description="Generate the synthetic data set Mini.")
    parser.add_argument("--output", default=f"dataset/{NAME}", help="folder to write")
    parser.add_argument("--seed", type=int, default=2025)
    args = parser.parse_args()
    try:
        make_mini(args.output, args.seed)
    except OSError as error:
        parser.error(f"--output {args.output}: {error}; expected a folder that can be written to")


if __name__ == "__main__":
    main()
