"""Evaluation of added items: hide items from a run, add them, and count who is recommended them.

Items that a run never saw are the targets of some users. A run like the given one is trained
without these items, in events and features alike; they are added to it; and each user's last item
is asked for, with the history before it, among all items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_bbqrec.atomic import write_text
from recbole_bbqrec.config.resume import FREE
from recbole_bbqrec.data.catalogue import SUFFIX
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.loaded_run import LoadedRun
from recbole_bbqrec.model.parts.item_features import item_features
from recbole_bbqrec.model.parts.neighbour_graph import weighted_neighbours
from recbole_bbqrec.model.settings import FeatureSettings, NeighbourSettings
from recbole_bbqrec.quick_start import load_run, run
from recbole_bbqrec.run_files.names import RunFiles
from recbole_bbqrec.settings import read
from recbole_bbqrec.upkeep.add_items import Churn, add_items, open_for_items
from recbole_bbqrec.upkeep.new_items import NewItems
from recbole_bbqrec.upkeep.settings import NEAREST

_K = 10  # length of the lists
_LEAST = 2  # events that a user needs: a history and a target


@dataclass(frozen=True)
class Recall:
    """Share of the targets among the first ten, and NDCG, of one way to rank.

    ``values``: by "cold" (hidden items), "warm" and "all", the pair (recall@10, ndcg@10).
    """

    name: str
    values: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class HiddenItems:
    """The outcome: rows of the table, numbers of targets by kind, and what adding did."""

    rows: list[Recall]
    targets: dict[str, int]
    churn: Churn


def hide_and_add(
    path: Path, output: Path, share: float = 0.1, seed: int = 0, nearest: int = NEAREST
) -> HiddenItems:
    """Train the run at ``path`` anew without a random ``share`` of its items, and add them.

    ``output`` takes the data, the run and the run with the added items. Histories are those before
    each user's last event, and leave the ranking. The rows are: the run with the added items; the
    run at ``path``, trained with all items; ItemNeighbours by features alone; the cosine to the
    last item, averaged over modalities.

    Raises:
        UserError: as :func:`~recbole_bbqrec.upkeep.add_items.add_items`; also a share outside
            (0, 1), or one that hides no item.
    """
    if not 0 < share < 1:
        raise UserError(f"--hide is {share}; expected a share of the items between 0 and 1.")
    if output.exists():
        raise UserError(f"--output {output} exists; it is never replaced. Name another folder.")
    finished, whole, present = open_for_items(path)
    names = list(present.widths)
    having = torch.stack([whole.dataset.item_features(m).present for m in names]).any(0)
    usable = having.nonzero().squeeze(1).numpy()
    count = round(share * len(usable))
    if not 0 < count < len(usable):
        raise UserError(f"--hide={share} hides {count} of {len(usable)} items. Give another share.")
    hidden = np.sort(np.random.default_rng(seed).permutation(usable)[:count])

    name = present.name
    _write_without(whole, hidden, names, output / "data" / name, name)
    options = {key: value for key, value in whole.config.resolved.items() if key not in FREE}
    own = {"data_path": str(output / "data"), "checkpoint_dir": str(output / "saved")}
    every = {"user_inter_num_interval": "[1,inf)", "item_inter_num_interval": "[1,inf)"}
    more = {"show_progress": False, "state": "WARNING"}
    overrides = {**options, **own, **every, **more}
    result = run(overrides.pop("model"), overrides.pop("dataset"), overrides=overrides)
    churn = add_items(
        RunFiles.at(Path(result["files"]["model"])).directory,
        _as_new(whole, hidden, names),
        output / "saved" / "with_added_items",
        nearest,
    )
    extended = load_run(output / "saved" / "with_added_items")
    return _measure(whole, extended, {whole.dataset.item_tokens[i] for i in hidden}, churn)


# helpers --------------------------------------------------------------------------------------


def _write_without(
    whole: LoadedRun, hidden: np.ndarray, names: Sequence[str], folder: Path, name: str
) -> None:
    """Write the run's data set without the items ``hidden``."""
    dataset, events = whole.dataset, whole.dataset.file_events
    users = dataset.field2id_token[dataset.uid_field]
    items = np.array(dataset.item_tokens)
    kept = ~np.isin(events.items, hidden)
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    lines += [
        f"{user}\t{item}\t{place}"
        for user, item, place in zip(
            users[events.users[kept]], items[events.items[kept]], events.earlier[kept]
        )
    ]
    write_text(folder / f"{name}.inter", "\n".join(lines) + "\n")
    every = np.delete(items, [0, *hidden])  # also those whose events are of no use without others
    write_text(folder / f"{name}.{SUFFIX}", "".join(f"{token}\n" for token in every))
    for modality in names:
        features = dataset.item_features(modality)
        having = features.present.numpy().copy()
        having[hidden] = False
        np.save(folder / f"{name}.{modality}.npy", features.matrix[having].numpy())
        text = "".join(f"{token}\n" for token in items[having])
        write_text(folder / f"{name}.{modality}.items.txt", text)


def _as_new(whole: LoadedRun, hidden: np.ndarray, names: Sequence[str]) -> NewItems:
    features = {}
    for modality in names:
        source = whole.dataset.item_features(modality)
        places = np.flatnonzero(source.present.numpy()[hidden])
        features[modality] = (places, source.matrix[hidden[places]].float().numpy())
    return NewItems(tuple(whole.dataset.item_tokens[i] for i in hidden), features)


def _measure(whole: LoadedRun, extended: LoadedRun, cold: set[str], churn: Churn) -> HiddenItems:
    events = whole.dataset.file_events
    known = {token: number for number, token in enumerate(extended.dataset.item_tokens)}
    items = np.array(whole.dataset.item_tokens)[events.items]
    bounds = np.flatnonzero(events.earlier == 0).tolist() + [len(items)]
    histories, targets = [], []
    for begin, end in zip(bounds, bounds[1:]):
        before = [str(item) for item in items[begin : end - 1] if item in known]
        if end - begin >= _LEAST and before and items[end - 1] in known:
            histories.append(before)
            targets.append(str(items[end - 1]))
    kinds = {
        "cold": np.array([target in cold for target in targets]),
        "warm": np.array([target not in cold for target in targets]),
        "all": np.ones(len(targets), dtype=bool),
    }
    lists = {
        "BBQRec, items added": _of_run(extended, histories),
        "BBQRec, trained with all items": _of_run(whole, histories),
        **_by_features(extended, histories, known),
    }
    rows = [Recall(name, _values(ranked, targets, kinds)) for name, ranked in lists.items()]
    return HiddenItems(rows, {kind: int(mask.sum()) for kind, mask in kinds.items()}, churn)


def _of_run(loaded: LoadedRun, histories: list[list[str]]) -> np.ndarray:
    table = loaded.recommend(histories=histories, k=_K, exclude_history=True)
    return table["item"].to_numpy().reshape(-1, _K)


def _by_features(
    extended: LoadedRun, histories: list[list[str]], known: dict[str, int]
) -> dict[str, np.ndarray]:
    """Rank by features alone: neighbours of the whole history, and cosines to the last item."""
    config, dataset = extended.config, extended.dataset
    names = extended.model.modalities_of(config)
    parts = item_features(dataset, names, read(FeatureSettings, config))
    weights = read(NeighbourSettings, config, cooccurrence_weight=0, feature_similarity_weight=1)
    near = weighted_neighbours(weights, None, parts, len(known))
    width = max(map(len, histories))
    ids = torch.zeros(len(histories), width, dtype=torch.int64)
    for row, history in enumerate(histories):
        ids[row, : len(history)] = torch.tensor([known[item] for item in history])
    lengths = (ids > 0).sum(1)
    scores = torch.zeros(len(known), len(histories))
    assert near is not None  # the model has a modality, and its weight is 1
    near.bonus(len(known), ids, lengths, torch.float32).add_to(scores)
    last = ids.gather(1, lengths.unsqueeze(1) - 1).squeeze(1)
    units = [F.normalize(part, dim=1) for part in parts]
    cosines = sum(unit[last] @ unit.t() for unit in units)
    return {
        "ItemNeighbours, features only": _top(scores.t(), ids, dataset.item_tokens),
        "cosine to the last item": _top(torch.as_tensor(cosines), ids, dataset.item_tokens),
    }


def _top(scores: Tensor, seen: Tensor, tokens: list[str]) -> np.ndarray:
    scores = scores.clone()
    scores.scatter_(1, seen, -torch.inf)
    scores[:, 0] = -torch.inf
    return np.array(tokens)[scores.topk(_K, dim=1).indices.numpy()]


def _values(ranked: np.ndarray, targets: list[str], kinds: dict[str, Any]) -> dict[str, Any]:
    hits = ranked == np.array(targets)[:, None]  # [n, k]
    recall, gain = hits.any(1), (hits / np.log2(np.arange(_K) + 2)).sum(1)
    nothing = float("nan")
    return {
        kind: tuple(float(v[mask].mean()) if mask.any() else nothing for v in (recall, gain))
        for kind, mask in kinds.items()
    }
