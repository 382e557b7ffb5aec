"""Evaluation of added items: hide items from a run, add them, and count who is recommended them.

Items that a run never saw are the targets of some users. A run like the given one is trained
without these items, in events and features alike; they are added to it; and each user's last item
is asked for, with the history before it, among all items.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_bbqrec.atomic import remove_folder, sha256_of, write_text, writing
from recbole_bbqrec.config.resume import FREE
from recbole_bbqrec.data.catalogue import SUFFIX
from recbole_bbqrec.data.protocol.settings import TIME, parse
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.loaded_run import LoadedRun
from recbole_bbqrec.model.parts.item_features import item_features
from recbole_bbqrec.model.parts.neighbour_graph import weighted_neighbours
from recbole_bbqrec.model.settings import FeatureSettings, NeighbourSettings
from recbole_bbqrec.prepare.tables.build import write_events
from recbole_bbqrec.prepare.tables.events import Events
from recbole_bbqrec.quick_start import load_run, run
from recbole_bbqrec.run_files.names import RunFiles
from recbole_bbqrec.settings import read
from recbole_bbqrec.upkeep.add_items import Churn, add_items, open_for_items
from recbole_bbqrec.upkeep.new_events import require_columns
from recbole_bbqrec.upkeep.new_items import NewItems
from recbole_bbqrec.upkeep.settings import NEAREST

_K = 10  # length of the lists
_LEAST = 2  # events that a user needs: a history and a target
_USERS_AT_ONCE = 1024  # their scores of all items are in memory together
REPORT = "hidden_items.json"


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
    path: Path, output: Path, hide: str = "0.1", seed: int = 0, nearest: int = NEAREST
) -> HiddenItems:
    """Train the run at ``path`` anew without some of its items, and add them.

    ``output`` takes the data, the run, the run with the added items, and the outcome as
    ``hidden_items.json``. After an interruption the same call goes on. Histories are those before
    each user's last event, and leave the ranking. The rows are: the run with the added items; the
    run at ``path``, trained with all items; ItemNeighbours by features alone; the cosine to the
    last item, averaged over modalities.

    Args:
        path: a finished run to which items can be added.
        output: folder; must not exist, or be that of the same call, interrupted.
        hide: share of the items, "0.1", chosen by ``seed``; or "time:q", the items whose first
            event is later than the share q of all events.
        seed: of the choice.
        nearest: as in :func:`~recbole_bbqrec.upkeep.add_items.add_items`.

    Raises:
        UserError: as :func:`~recbole_bbqrec.upkeep.add_items.add_items`; also a ``hide`` that is
            neither, that hides no item or all, or that needs times which the run does not have.
    """
    if _share(hide) is None and _quantile(hide) is None:
        raise UserError(
            f"--hide is {hide}; expected a share of the items between 0 and 1, such as 0.1, or "
            f"{TIME}:q, such as {TIME}:0.9."
        )
    report = output / REPORT
    if output.exists() and not report.is_file():
        raise UserError(f"--output {output} exists; it is never replaced. Name another folder.")
    finished, whole, present = open_for_items(path)
    require_columns(path, whole, "--hide")
    asked = {
        "model": sha256_of(finished.files.model), "hide": hide, "seed": seed, "nearest": nearest,
    }  # fmt: skip
    names, name = list(present.widths), present.name
    hidden = _hidden(whole, names, hide, seed)
    if output.exists():
        kept = json.loads(report.read_text(encoding="utf-8"))
        if kept["asked"] != asked or "rows" in kept:
            ended = "is finished" if "rows" in kept else "was begun by another command"
            raise UserError(f"--output {output} exists and {ended}. Name another folder.")
    else:
        write_text(report, _text({"asked": asked}))
    with writing(output), RunFiles(output).claim():
        _write_without(whole, hidden, names, output / "data" / name, name)
        files = _train(whole, output)
        extended = output / "saved" / "with_added_items"
        if extended.exists():
            remove_folder(extended, of=extended.name)
        churn = add_items(files.directory, _as_new(whole, hidden, names), extended, nearest)
        cold = {whole.dataset.item_tokens[i] for i in hidden}
        outcome = _measure(whole, load_run(extended), cold, churn)
        write_text(report, _text({"asked": asked, **asdict(outcome)}))
    return outcome


# helpers --------------------------------------------------------------------------------------


def _share(hide: str) -> float | None:
    """Return the share of the items that ``hide`` names, or None."""
    try:
        share = float(hide)
    except ValueError:
        return None
    return share if 0 < share < 1 else None


def _quantile(hide: str) -> float | None:
    """Return the quantile of the times that ``hide`` names, or None."""
    protocol = parse(hide)
    return protocol.quantile if protocol is not None and protocol.name == TIME else None


def _hidden(whole: LoadedRun, names: Sequence[str], hide: str, seed: int) -> np.ndarray:
    """Choose the items to hide among those with a feature, int64 [n], ascending."""
    having = torch.stack([whole.dataset.item_features(m).present for m in names]).any(0)
    usable = having.nonzero().squeeze(1).numpy()
    quantile = _quantile(hide)
    if quantile is None:
        chosen = np.random.default_rng(seed).permutation(usable)[: round(float(hide) * len(usable))]
    else:
        events = whole.dataset.file_events
        known = events.known
        if not known.any():
            raise UserError(f"--hide={hide} needs times, and the run's events have none.")
        first = np.full(whole.dataset.item_num, np.inf)  # time of each item's first event
        np.minimum.at(first, events.items[known], events.times[known])
        first[events.items[~known]] = -np.inf
        chosen = usable[first[usable] > np.quantile(events.times[known], quantile)]
        chosen = chosen[np.isfinite(first[chosen])]
    if not 0 < len(chosen) < len(usable):
        raise UserError(
            f"--hide={hide} hides {len(chosen)} of {len(usable)} items. Choose another value."
        )
    return np.sort(chosen)


def _train(whole: LoadedRun, output: Path) -> RunFiles:
    """Train the run's model on the data in ``output``, or go on; return the finished run."""
    model = whole.config["model"]
    for files in RunFiles.all_in(output / "saved", model):
        if files.result.is_file():
            return files
    overrides = {key: value for key, value in whole.config.resolved.items() if key not in FREE}
    overrides.update(
        data_path=str(output / "data"), checkpoint_dir=str(output / "saved"), resume="auto",
        user_inter_num_interval="[1,inf)", item_inter_num_interval="[1,inf)",
        show_progress=False, state="WARNING",
    )  # fmt: skip
    result = run(overrides.pop("model"), overrides.pop("dataset"), overrides=overrides)
    return RunFiles.at(Path(result["files"]["model"]))


def _text(report: dict[str, Any]) -> str:
    return json.dumps(report, indent=2) + "\n"


def _write_without(
    whole: LoadedRun, hidden: np.ndarray, names: Sequence[str], folder: Path, name: str
) -> None:
    """Write the run's data set without the items ``hidden``."""
    dataset, events = whole.dataset, whole.dataset.file_events
    users = [str(token) for token in dataset.field2id_token[dataset.uid_field]]
    items = np.array(dataset.item_tokens)
    kept = events.take(np.flatnonzero(~np.isin(events.items, hidden)))
    # A user without known times has positions for times, as `prepare` writes them.
    times = np.where(kept.known, kept.times, kept.earlier) if kept.known.any() else None
    folder.mkdir(parents=True, exist_ok=True)
    write_events(
        folder / f"{name}.inter",
        Events(kept.users - 1, kept.items - 1, users[1:], dataset.item_tokens[1:], 0, {}, times),
    )
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
    assert near is not None  # the model has a modality, and its weight is 1
    units = [F.normalize(part, dim=1) for part in parts]
    lists: dict[str, list[np.ndarray]] = {"ItemNeighbours, features only": [],
                                          "cosine to the last item": []}  # fmt: skip
    by_neighbours, by_cosine = lists.values()
    for begin in range(0, len(histories), _USERS_AT_ONCE):
        some = histories[begin : begin + _USERS_AT_ONCE]
        ids = torch.zeros(len(some), max(map(len, some)), dtype=torch.int64)
        for row, history in enumerate(some):
            ids[row, : len(history)] = torch.tensor([known[item] for item in history])
        lengths = (ids > 0).sum(1)
        scores = torch.zeros(len(known), len(some))
        near.bonus(len(known), ids, lengths, torch.float32).add_to(scores)
        by_neighbours.append(_top(scores.t(), ids, dataset.item_tokens))
        last = ids.gather(1, lengths.unsqueeze(1) - 1).squeeze(1)
        cosines = torch.as_tensor(sum(unit[last] @ unit.t() for unit in units))
        by_cosine.append(_top(cosines, ids, dataset.item_tokens))
    return {name: np.concatenate(found) for name, found in lists.items()}


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
