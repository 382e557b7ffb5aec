"""Fold new users, events and items into a finished run: a new run, trained on from the old one.

The work is kept beside the output until it is complete::

    .RUN2.update/
    ├── plan.json       digest of the command: the same command goes on
    ├── base/           the run with the new items, if there are any
    └── RUN2/, RUN2.pth the new run, an ordinary one that resumes from its resume.pth
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from recbole_bbqrec.atomic import (
    remove_folder,
    remove_unfinished,
    sha256_of,
    write_text,
    writing,
)
from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.loaded_run import LoadedRun
from recbole_bbqrec.model.base.generative import GenerativeRecommender
from recbole_bbqrec.prepare.tables.events import EventOptions
from recbole_bbqrec.prepare.tables.features import FeatureFile
from recbole_bbqrec.prepare.tables.items import ItemOptions
from recbole_bbqrec.prepare.tables.ledger import Ledger
from recbole_bbqrec.quick_start import build_model, load_run, prepare, run
from recbole_bbqrec.run_files.checkpoint import load_model_file, load_weights
from recbole_bbqrec.run_files.finished_run import FinishedRun
from recbole_bbqrec.run_files.kept_data import list_data
from recbole_bbqrec.run_files.names import LOCK, PLAN, RunFiles
from recbole_bbqrec.tokenizer.semantic_ids import SemanticIds
from recbole_bbqrec.trainer.registry import get_trainer_class
from recbole_bbqrec.trainer.shared_work import no_tensorboard
from recbole_bbqrec.upkeep.add_items import add_items, changed_ids, open_for_items
from recbole_bbqrec.upkeep.base_run import open_base_run
from recbole_bbqrec.upkeep.new_events import (
    Counts,
    merge,
    read_new_events,
    require_columns,
    write_updated,
)
from recbole_bbqrec.upkeep.new_items import read_new_items
from recbole_bbqrec.upkeep.newest_day import NewestDay, measure_newest_day
from recbole_bbqrec.upkeep.settings import EPOCHS
from recbole_bbqrec.version import __version__

_BASE = "base"
_NO_FILTER = "[1,inf)"  # the run's own filters have acted on its events


@dataclass(frozen=True)
class NewData:
    """Files that an update folds in.

    Attributes:
        interactions: table of events, as ``prepare`` reads it.
        events: its columns and filters; the cores do not apply.
        items, features, columns, text_encoder: new items, as
            :func:`~recbole_bbqrec.upkeep.new_items.read_new_items` takes them.
    """

    interactions: Path
    events: EventOptions = EventOptions()
    items: Path | None = None
    features: Sequence[FeatureFile] = ()
    columns: ItemOptions = ItemOptions()
    text_encoder: str | None = None

    def paths(self) -> list[Path]:
        """Return the files."""
        own = [path for path in (self.interactions, self.items) if path is not None]
        return [*own, *(path for file in self.features for path in file.paths())]


@dataclass(frozen=True)
class Updated:
    """Report on an update.

    Attributes:
        counts: what was folded in.
        items_added: new items.
        ids_changed: items of the old run whose semantic ID is another; always 0.
        left_out: rows left out by reason, as text; empty for none.
        epochs: epochs trained, at most those asked for.
        seconds: training of this update.
        seconds_before: training of the run that it started from, both phases.
        newest: metrics before and after.
    """

    counts: Counts
    items_added: int
    ids_changed: int
    left_out: str
    epochs: int
    seconds: float
    seconds_before: float
    newest: NewestDay


def update(
    path: Path,
    new: NewData,
    output: Path,
    epochs: int = EPOCHS,
    learning_rate: float | None = None,
) -> Updated:
    """Write a run to ``output`` that is the run at ``path`` with ``new`` data, trained on.

    New items are added without training first. Phase one is not trained: no semantic ID of an item
    changes. Phase two starts with the old weights and trains ``epochs`` epochs on all training
    events, old and new, by the split of the run. The run at ``path`` is only read. After an
    interruption the same call goes on, with the same result to the bit.

    Args:
        path: a finished run of a generative model.
        new: the files.
        output: folder of the new run; must not exist.
        epochs: at least 1.
        learning_rate: None for that of the run.

    Raises:
        UserError: the run cannot be updated, a file does not fit it, or no event is left.
    """
    if output.exists():
        remove_unfinished(output.parent, of=output.name)
        raise UserError(f"--output {output} exists; it is never replaced. Name another folder.")
    work = output.with_name(f".{output.name}.update")
    started, plan = RunFiles(work / output.name), work / PLAN
    lacking = [file for file in new.paths() if not file.is_file()]
    if lacking:
        raise UserError(f"There is no file {lacking[0]}. Correct its path.")
    old = _open(path)
    options: dict[str, Any] = {"epochs": epochs}
    if learning_rate is not None:
        options["learning_rate"] = learning_rate
    asked = _digest(path, new, options)
    with writing(work):
        work.mkdir(parents=True, exist_ok=True)
    with RunFiles(work).claim():
        if not plan.is_file() or json.loads(plan.read_text("utf-8")).get("digest") != asked:
            _empty(work)
            try:
                with writing(work):
                    told = _start(path, old, new, work, started, options)
            except BaseException:
                shutil.rmtree(work, ignore_errors=True)
                raise
            write_text(plan, json.dumps({"digest": asked, **told}, indent=1) + "\n")
        told = json.loads(plan.read_text("utf-8"))
        try:
            result = run(overrides={"resume": str(started.directory)})
        except KeyboardInterrupt:  # its text names --resume
            raise KeyboardInterrupt from None
        report = _finish(path, old, started, told, result)
        with writing(output):
            os.rename(started.directory, output)
            remove_folder(work, of=output.name)
    return report


# helpers --------------------------------------------------------------------------------------


def _open(path: Path) -> LoadedRun:
    """Load the run, or say why it cannot be updated."""
    words = "a generative model, whose phase two goes on; train others anew"
    old = open_base_run(path, GenerativeRecommender, words)[1]
    require_columns(path, old, "an update")
    return old


def _digest(path: Path, new: NewData, trained: Mapping[str, Any]) -> str:
    """Return what tells two commands apart: options, and the content of all files."""
    hashes = {str(file): sha256_of(file) for file in new.paths()}
    model = sha256_of(FinishedRun.at(path).files.model)
    options = repr((asdict(new.events), asdict(new.columns), trained))
    named = json.dumps([__version__, model, hashes, options, new.text_encoder], sort_keys=True)
    return hashlib.sha256(named.encode()).hexdigest()


def _empty(work: Path) -> None:
    """Remove what another command, or a start that was cut short, left in the folder."""
    for path in work.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


def _start(
    path: Path, old: LoadedRun, new: NewData, work: Path, files: RunFiles,
    options: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """Write the new run up to the beginning of phase two; return the report on its data."""
    ledger, added = Ledger(), 0
    base, source = old, FinishedRun.at(path).files
    if new.items is not None or new.features:
        present = open_for_items(path)[2]
        items = read_new_items(
            present, new.features, new.items, new.columns, new.text_encoder, required=False
        )
        added = len(items.tokens)
        if added:
            add_items(path, items, work / _BASE)
            base, source = load_run(work / _BASE), RunFiles(work / _BASE)
    events = read_new_events(
        new.interactions, new.events, set(base.dataset.item_tokens[1:]), ledger
    )
    merged, counts = merge(base.dataset, events, ledger)
    if new.events.strict:
        ledger.refuse_faults()

    name = base.config["dataset"]
    write_updated(source.data / name, files.data / name, name, merged)
    list_data(files, name)
    own = {
        "data_path": str(files.data.absolute()), "checkpoint_dir": str(work.parent), "resume": None,
        "user_inter_num_interval": _NO_FILTER, "item_inter_num_interval": _NO_FILTER,
        "val_interval": None, "tokenizer_path": None,
    }  # fmt: skip
    state = load_model_file(source.model)
    config = BBQRecConfig.from_text(state["config"], {**own, **options})
    prepared = prepare(config)
    if prepared.dataset.item_tokens != base.dataset.item_tokens:
        raise RuntimeError("the vocabulary of the updated data set is not that of the run")
    model = build_model(config, prepared.train_data)
    load_weights(model, base.model.state_dict(), source.model)
    ids = SemanticIds.load(source.semantic_ids)
    identity = {
        f"fingerprint_{n}": f["fingerprint"] for n, f in prepared.identity["features"].items()
    }
    identity["split_hash"] = prepared.split_hash
    metadata = {**ids.metadata, **{k: v for k, v in identity.items() if k in ids.metadata}}
    replace(ids, metadata=metadata).save(files.semantic_ids)
    if source.tokenizer_network.is_file():
        shutil.copyfile(source.tokenizer_network, files.tokenizer_network)
    write_text(files.config, config.to_text())
    with no_tensorboard():
        trainer = get_trainer_class(config["model"])(config, model)
    trainer.use_data(prepared.identity)
    trainer.use_files(files)
    trainer.save_start(prepared.train_data, prepared.valid_data)
    users = sorted({events.user_names[code] for code in events.users})
    return {
        "counts": asdict(counts), "users": users, "items_added": added, "left_out": ledger.table(),
    }  # fmt: skip


def _finish(
    path: Path, old: LoadedRun, files: RunFiles, told: Mapping[str, Any], result: Mapping[str, Any]
) -> Updated:
    """Measure the new run and write the report into its result."""
    new = load_run(files.directory)
    newest = measure_newest_day(old, new, told["users"])
    before, after = (SemanticIds.load(f.semantic_ids) for f in (FinishedRun.at(path).files, files))
    changed = changed_ids(before, after)
    if changed:
        raise RuntimeError(f"{changed} old items would get another semantic ID")
    seconds = FinishedRun.at(path).result["seconds"]
    report = Updated(
        counts=Counts(**told["counts"]),
        items_added=told["items_added"],
        ids_changed=changed,
        left_out=told["left_out"],
        epochs=sum(line["phase"] == "generate" for line in FinishedRun.at(files.directory).epochs),
        seconds=result["seconds"]["train"],
        seconds_before=seconds["train"],
        newest=newest,
    )
    kept = json.loads(files.result.read_text("utf-8"))
    kept["updated"] = {**asdict(report), "run": FinishedRun.at(path).files.directory.name}
    write_text(files.result, json.dumps(kept, indent=2) + "\n")
    return report
