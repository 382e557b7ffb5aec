"""Measure a prepared data set: statistics, and some items' neighbours by each modality.

Reads the files as they lie in the folder, before RecBole filters them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from recbole_bbqrec.data.features import ModalityFeatures, load_modality
from recbole_bbqrec.data.loaded_columns import header_columns
from recbole_bbqrec.data.protocol.events import order_events
from recbole_bbqrec.data.protocol.settings import SplitSettings
from recbole_bbqrec.data.protocol.ties import tie_statistics
from recbole_bbqrec.data.titles import read_titles
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.prepare.on_demand import how_to_make
from recbole_bbqrec.prepare.tables.events import EventOptions, read_events
from recbole_bbqrec.prepare.tables.ledger import Ledger

_BLOCK_ITEMS = 8192


@dataclass(frozen=True)
class Neighbours:
    """Items most similar to one item by one modality, best first.

    Attributes:
        present: True if the item itself has the modality; without it there are no neighbours.
        items: codes of the neighbours, without the item itself.
        cosine: their cosine similarities.
    """

    present: bool
    items: tuple[int, ...]
    cosine: tuple[float, ...]


@dataclass(frozen=True)
class Modality:
    """Coverage of one modality.

    ``interactions`` is the share of events whose item has it, 0 to 1.
    """

    name: str
    encoder: str
    dim: int
    items: int
    interactions: float


@dataclass(frozen=True)
class Inspection:
    """Statistics of a data set.

    Attributes:
        lengths: events per user, int64 [n_users].
        counts: events per item, int64 [n_items].
        repeats: events whose user had the same item before.
        tokens, titles: by item code; a title may be empty.
        left_out: rows of the file that are not counted here, by reason; RecBole may read them.
        modalities: by name order.
        neighbours: item code to modality name to neighbours.
        ties: of :func:`recbole_bbqrec.data.protocol.ties.tie_statistics`; empty without times.
    """

    name: str
    directory: Path
    lengths: np.ndarray
    counts: np.ndarray
    repeats: int
    tokens: Sequence[str]
    titles: Sequence[str]
    left_out: Ledger
    modalities: tuple[Modality, ...]
    neighbours: dict[int, dict[str, Neighbours]] = field(default_factory=dict)
    ties: dict[str, Any] = field(default_factory=dict)

    @property
    def interactions(self) -> int:
        """Return the number of events."""
        return int(self.lengths.sum())


def inspect_folder(
    name: str,
    data_path: str | os.PathLike[str],
    wanted: Sequence[str] = (),
    n_queries: int = 3,
    n_neighbours: int = 4,
) -> Inspection:
    """Read data set ``name`` in ``data_path``.

    Args:
        name: the data set's name.
        data_path: folder that holds ``name/``.
        wanted: raw tokens of items to show neighbours of; without any the ``n_queries`` most
            popular items that have all modalities, or, if no item has, the most popular items
            (of equally popular ones, the first in the file).
        n_queries: items to show neighbours of.
        n_neighbours: neighbours per modality.

    Raises:
        UserError: a file is missing or unreadable, or a wanted item is not in the data set.
    """
    folder = Path(data_path) / name
    path = folder / f"{name}.inter"
    if not path.is_file():
        raise UserError(
            f"{path} not found; expected a prepared data set. Set --data_path, or "
            f"{how_to_make(name, folder)}."
        )
    options = EventOptions(user="user_id", item="item_id", user_core=1, item_core=1)
    left_out = Ledger()
    events = read_events(path, options, left_out)
    tokens = events.item_names
    code_of = {token: code for code, token in enumerate(tokens)}
    counts = np.bincount(events.items, minlength=len(tokens))
    names = sorted(p.name[len(name) + 1 : -4] for p in folder.glob(f"{name}.*.npy"))
    features = {n: load_modality(folder, name, n, ["[PAD]", *tokens]) for n in names}
    pairs = events.users.astype(np.int64) * len(tokens) + events.items
    queries = _queries(path, wanted, code_of, counts, features, n_queries)
    neighbours: dict[int, dict[str, Neighbours]] = {query: {} for query in queries}
    for modality, feature in features.items():
        for query, found in zip(queries, nearest(feature, queries, n_neighbours)):
            neighbours[query][modality] = found
    return Inspection(
        name=name,
        directory=folder,
        lengths=np.bincount(events.users),
        counts=counts,
        repeats=len(pairs) - len(np.unique(pairs)),
        tokens=tokens,
        titles=_titles(folder / f"{name}.titles.tsv", code_of),
        left_out=left_out,
        modalities=tuple(_modality(feature, counts) for feature in features.values()),
        neighbours=neighbours,
        ties=_ties(path),
    )


def _ties(path: Path) -> dict[str, Any]:
    """Describe the events of one time in an atomic file; empty if it has no times."""
    header = header_columns(path, "\t", "utf-8") or {}
    names = {"user_id", "item_id", "timestamp", "unix_time"} & set(header)
    if not {"user_id", "item_id", "timestamp"} <= names:
        return {}
    columns = [header[name] for name in sorted(names)]
    tokens = {header[name]: str for name in ("user_id", "item_id")}
    frame = pd.read_csv(
        path, sep="\t", usecols=columns, dtype=tokens, keep_default_na=False, na_values=[""]
    ).dropna()
    frame.columns = [column.partition(":")[0] for column in frame.columns]
    users, _ = pd.factorize(frame["user_id"])
    items, item_tokens = pd.factorize(frame["item_id"])
    position = pd.to_numeric(frame["timestamp"], errors="coerce").to_numpy(np.float64)
    real = frame["unix_time" if "unix_time" in names else "timestamp"]
    times = pd.to_numeric(real, errors="coerce").to_numpy(np.float64)
    if not (np.isfinite(position).all() and np.isfinite(times).all()):
        return {}
    events = order_events(users, items + 1, position, times, SplitSettings().day_length)
    return tie_statistics(events, np.array(["[PAD]", *item_tokens], dtype=object))


def nearest(features: ModalityFeatures, queries: Sequence[int], top: int) -> list[Neighbours]:
    """Return the nearest items by cosine (ties: the lower code), one result per query.

    Args:
        features: aligned with internal ids (code + 1).
        queries: item codes.
        top: number of neighbours.
    """
    matrix, present = features.matrix, features.present
    ids = torch.as_tensor(queries, dtype=torch.int64) + 1
    unit = torch.nn.functional.normalize(matrix[ids].float(), dim=1)  # [queries, dim]
    blocks = [
        torch.nn.functional.normalize(block.float(), dim=1) @ unit.T
        for block in matrix.split(_BLOCK_ITEMS)
    ]
    cosine = torch.cat(blocks).T  # [queries, n_items]
    cosine[:, ~present] = -torch.inf
    cosine[torch.arange(len(ids)), ids] = -torch.inf
    # Rounded: the order of equal vectors must not depend on the last bit of a product.
    best = cosine.mul(1e4).round().sort(dim=1, descending=True, stable=True).indices[:, :top]
    results = []
    for row, query in enumerate(ids.tolist()):
        found = [i for i in best[row].tolist() if present[query] and cosine[row, i] > -torch.inf]
        similar = tuple(round(float(cosine[row, i]), 4) for i in found)
        results.append(Neighbours(bool(present[query]), tuple(i - 1 for i in found), similar))
    return results


def _queries(
    path: Path,
    wanted: Sequence[str],
    code_of: dict[str, int],
    counts: np.ndarray,
    features: dict[str, ModalityFeatures],
    count: int,
) -> list[int]:
    for token in wanted:
        if token not in code_of:
            raise UserError(
                f"--item {token!r} is not among the {len(code_of):,} items of {path} (for example "
                f"{next(iter(code_of))!r}); expected a raw item token."
            )
    if wanted:
        return [code_of[token] for token in dict.fromkeys(wanted)]
    if not features:
        return []
    owned = np.stack([feature.present[1:].numpy() for feature in features.values()])
    present = np.all(owned, axis=0)
    if not present.any():
        present = np.any(owned, axis=0)
    popular = np.argsort(-counts, kind="stable")
    return [int(code) for code in popular[present[popular]][:count]]


def _modality(features: ModalityFeatures, counts: np.ndarray) -> Modality:
    present = features.present[1:].numpy()
    metadata: dict[str, Any] = features.metadata
    return Modality(
        name=features.name,
        encoder=str(metadata.get("encoder", "unknown encoder")),
        dim=features.dim,
        items=int(present.sum()),
        interactions=float(counts[present].sum() / counts.sum()),
    )


def _titles(path: Path, code_of: dict[str, int]) -> list[str]:
    titles = read_titles(path)
    return [titles.get(token, "") for token in code_of]
