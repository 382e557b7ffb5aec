"""Add items to a finished run without training: a new run that has them, too."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recbole_bbqrec.atomic import atomic_folder, write_text
from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.data.histories import Histories
from recbole_bbqrec.data.identity import feature_sources
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.experiment.evaluate.evaluation import evaluate
from recbole_bbqrec.experiment.evaluate.jobs import find_jobs
from recbole_bbqrec.loaded_run import LoadedRun
from recbole_bbqrec.model.parts.item_features import item_features
from recbole_bbqrec.model.sequential_recommender.bbqrec import BBQRec
from recbole_bbqrec.model.settings import GeneratorFeatureSettings
from recbole_bbqrec.quick_start import build_model, prepare
from recbole_bbqrec.run_files.checkpoint import (
    load_checkpoint,
    load_model_file,
    load_weights,
    require_keys,
    save_checkpoint,
)
from recbole_bbqrec.run_files.finished_run import FinishedRun
from recbole_bbqrec.run_files.kept_data import list_data
from recbole_bbqrec.run_files.names import RunFiles
from recbole_bbqrec.settings import read
from recbole_bbqrec.tokenizer.collisions import count_collisions, resolve_collisions
from recbole_bbqrec.tokenizer.semantic_ids import SemanticIds
from recbole_bbqrec.upkeep.base_run import open_base_run
from recbole_bbqrec.upkeep.extended_data import write_extended
from recbole_bbqrec.upkeep.nearest import Nearest, nearest_trained
from recbole_bbqrec.upkeep.new_items import NewItems, Present
from recbole_bbqrec.upkeep.settings import NEAREST

_SAME_FEATURES = 1e-2  # largest difference of a feature of mean square one; PCA rounds
_OTHER_CODES = 0.01  # share of the old items whose codes may come out otherwise on a machine


@dataclass(frozen=True)
class Churn:
    """Report on items added to a run.

    Attributes:
        items_before: items that the run had.
        items_added: new ones.
        known: items that were given but which the run had already.
        ids_changed: old items whose semantic ID is another in the new file; always 0.
        ids_moved: new items that take another last code than their nearest, to be unique.
        ids_shared: new items that share their semantic ID all the same.
        without_similar: new items to which no item of training is similar: they have no ID signal
            and an item embedding of zero.
    """

    items_before: int
    items_added: int
    known: int
    ids_changed: int
    ids_moved: int
    ids_shared: int
    without_similar: int


def open_for_items(path: Path) -> tuple[FinishedRun, LoadedRun, Present]:
    """Load the run at ``path``, and say what it has.

    Raises:
        UserError: there is no finished run, or one that cannot be extended.
    """
    finished, run = open_base_run(
        path, BBQRec, "BBQRec or a variant of it, to which items can be added"
    )
    files = finished.files
    if not files.tokenizer_network.is_file():
        raise UserError(
            f"The run at {path} has no {files.tokenizer_network.name}, which makes semantic IDs "
            "for new items. Restore it, or add the items to a run that trained both phases."
        )
    names = run.model.modalities_of(run.config)
    widths = {name: run.dataset.item_features(name).dim for name in names}
    name = run.config["dataset"]
    tokens = frozenset(run.dataset.item_tokens[1:])
    return finished, run, Present(files.data / name, name, tokens, widths)


def add_items(path: Path, new: NewItems, output: Path, nearest: int = NEAREST) -> Churn:
    """Write a run to ``output`` that has the items of the run at ``path`` and the new ones.

    Nothing is trained. New items are encoded and quantized by the run's phase one, whose codebooks
    stay as they are. What only training can give, the ID representation and the item embedding, is
    the mean of those of the ``nearest`` items of training by features. The run at ``path`` is only
    read, and old items keep their semantic IDs.

    Raises:
        UserError: the run cannot be extended, ``output`` exists, or this machine's principal
            components of the features are not those of the run.

    Examples
    --------
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from recbole_bbqrec.upkeep.new_items import NewItems
    >>> rows = np.ones((1, 64), dtype=np.float32)  # doctest: +SKIP
    >>> new = NewItems(("i9999",), {"text": (np.array([0]), rows)})  # doctest: +SKIP
    >>> add_items(Path("saved/my-run"), new, Path("saved/with-new")).ids_changed  # doctest: +SKIP
    0
    """
    finished, old, _ = open_for_items(path)
    if output.exists():
        raise UserError(f"--output {output} exists; it is never replaced. Name another folder.")
    with atomic_folder(output) as work:
        return _write(finished, old, new, RunFiles(work), nearest)


# helpers --------------------------------------------------------------------------------------


def _write(
    finished: FinishedRun, old: LoadedRun, new: NewItems, files: RunFiles, nearest: int
) -> Churn:
    source, name = finished.files, old.config["dataset"]
    write_extended(source.data / name, files.data / name, name, new)
    list_data(files, name)
    state = load_model_file(source.model)
    config = BBQRecConfig.from_text(state["config"], {"data_path": str(files.data.absolute())})
    prepared = prepare(config)
    dataset = prepared.dataset
    first, total = old.dataset.item_num, dataset.item_num
    if list(dataset.item_tokens) != [*old.dataset.item_tokens, *new.tokens]:
        raise RuntimeError("the vocabulary of the extended data set is not the old one and the new")

    model = build_model(config, prepared.train_data)
    trained = Histories.from_training_data(prepared.train_data._dataset).trained_items(total)
    parts = item_features(
        dataset, model.modalities_of(config), read(GeneratorFeatureSettings, config)
    )
    added = torch.arange(first, total)
    near = nearest_trained(parts, trained & ~dataset.added_items, added, nearest)

    ids = SemanticIds.load(source.semantic_ids)
    network = _tokenizer(config, model, dataset, source, files, near, trained)
    quantized = network.tokenize()
    _check_codes(quantized.codes[1:first], ids, source)
    codes = torch.cat([old.model.codes.cpu(), quantized.codes[first:].cpu()])
    fixed = torch.arange(total) < first
    unique = resolve_collisions(codes, quantized.last_level_distances, fixed)
    vectors = torch.cat([old.model.vectors.cpu(), quantized.vectors[first:].cpu()])
    features = prepared.identity["features"]
    identity = {f"fingerprint_{name}": f["fingerprint"] for name, f in features.items()}
    identity["split_hash"] = prepared.split_hash  # which covers items without events
    before = ids.codes_before
    replace(
        ids,
        item_tokens=(*ids.item_tokens, *new.tokens),
        codes=torch.cat([ids.codes, unique[first:]]),
        vectors=torch.cat([ids.vectors, vectors[first:]]),
        metadata={**ids.metadata, **{k: v for k, v in identity.items() if k in ids.metadata}},
        codes_before=None if before is None else torch.cat([before, quantized.codes[first:].cpu()]),
    ).save(files.semantic_ids)

    weights = _extended(old.model, model, near, first)
    load_weights(model, weights, source.model)
    model.set_semantic_ids(unique.to(model.codes.device), vectors.to(model.codes.device))
    state = {**state, **prepared.identity, "state_dict": model.state_dict()}
    save_checkpoint(state, files.model_inside)

    changed = changed_ids(ids, SemanticIds.load(files.semantic_ids))
    churn = Churn(
        items_before=first - 1,
        items_added=len(new.tokens),
        known=new.known,
        ids_changed=changed,
        ids_moved=int((unique[first:] != codes[first:]).flatten(1).any(1).sum()),
        ids_shared=_shared(unique, first),
        without_similar=int((~near.found).sum()),
    )
    if changed:
        raise RuntimeError(f"{changed} old items would get another semantic ID")
    result = {
        **finished.result,
        "features": feature_sources(dataset),
        "split_hash": prepared.split_hash,
        "added_items": {**asdict(churn), "run": source.directory.name},
    }
    result.pop("files", None)
    write_text(files.config, str(state["config"]))
    if source.epochs.is_file():
        shutil.copyfile(source.epochs, files.epochs)
    write_text(files.result, json.dumps(result, indent=2) + "\n")
    # The metrics of the run rank fewer items: test again.
    tested = evaluate(find_jobs([files.directory], {}, "test")[0], "test")
    if tested.users is not None:
        tested.users.save(files.per_user)
    result.update(test_result=dict(tested.metrics), by_target=dict(tested.by_target))
    write_text(files.result, json.dumps(result, indent=2) + "\n")
    return churn


def _tokenizer(
    config: Any, model: Any, dataset: Any, source: RunFiles, files: RunFiles, near: Nearest,
    trained: Tensor,
) -> Any:  # fmt: skip
    """Build the phase-one network with the new items, and save it for the next ones."""
    state = load_checkpoint(source.tokenizer_network)
    require_keys(state, ["state_dict"], source.tokenizer_network)
    known = trained | dataset.added_items
    known[len(known) - len(near.items) :] = near.found
    network = model.build_tokenizer(config, dataset, known)
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    weights = {
        name: tensor
        if tensor.shape == shapes.get(name)
        else torch.cat([tensor, near.mean(tensor)])  # of the items' ID representations
        for name, tensor in state["state_dict"].items()
    }
    load_weights(network, weights, source.tokenizer_network)
    save_checkpoint({"state_dict": network.state_dict()}, files.tokenizer_network)
    return network


def _extended(old: Any, new: Any, near: Nearest, first: int) -> dict[str, Tensor]:
    """Return the weights of ``old`` with rows for the new items, in the shapes of ``new``."""
    weights: Mapping[str, Tensor] = old.state_dict()
    rows: dict[str, Tensor] = {}
    for name, like in new.state_dict().items():
        tensor = weights[name]
        if tensor.shape == like.shape:
            rows[name] = tensor
        elif name == "features":
            difference = (like[:first] - tensor).abs().max()
            if not float(difference) < _SAME_FEATURES:
                raise UserError(
                    "The principal components of the features come out otherwise on this machine "
                    f"than in the run (a difference of {float(difference):.3g}), so new items "
                    "cannot be brought to them. Add the items where the run was trained."
                )
            rows[name] = torch.cat([tensor, like[first:]])
        elif name in ("codes", "vectors"):
            rows[name] = torch.cat([tensor, like[first:]])  # the caller replaces them
        else:
            rows[name] = torch.cat([tensor, near.mean(tensor)])  # of the item embeddings
    return rows


def _check_codes(codes: Tensor, ids: SemanticIds, source: RunFiles) -> None:
    """Raise UserError unless the network gives the old items the codes that they have."""
    stored = ids.codes if ids.codes_before is None else ids.codes_before
    other = (codes.cpu() != stored).flatten(1).any(1).float().mean()
    if ids.codes_before is not None and float(other) > _OTHER_CODES:
        raise UserError(
            f"{source.tokenizer_network} gives {float(other):.0%} of the items other codes than "
            f"{source.semantic_ids} has: the two are not of one run. Restore them."
        )


def _shared(codes: Tensor, first: int) -> int:
    """Count the new items that share a semantic ID with another item."""
    return count_collisions(codes).items - count_collisions(codes[:first]).items


def changed_ids(before: SemanticIds, after: SemanticIds) -> int:
    """Count the items of ``before`` that have another semantic ID, or none, in ``after``."""
    row_of = {token: row for row, token in enumerate(after.item_tokens)}
    pairs = ((row, row_of.get(token)) for row, token in enumerate(before.item_tokens))
    same = sum(
        other is not None and torch.equal(before.codes[row], after.codes[other])
        for row, other in pairs
    )
    return len(before.item_tokens) - same
