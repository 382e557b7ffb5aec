"""Baselines: a training step and an evaluation, with and without our optimisations.

The reference computes the same in the usual way: every history padded to 20 items and RecBole's
dropout (NOVABERT, MMSASRec, MMGRU4Rec), torch's gradient of ``embedding_bag`` (VQRec), padded
histories and RecBole's collector (evaluation). Both take turns on the same batches in one process.
A step excludes the optimizer; --precision sets its precision (default bfloat16).

    python benchmarks/baselines.py --data-path <folder that holds Beauty/> [--small]
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any, Callable
from unittest import mock

import common
import torch
import torch.nn.functional as F
from recbole.evaluator import Collector
from torch import Tensor

from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.model.base import history_model as history
from recbole_bbqrec.model.base import length_groups
from recbole_bbqrec.model.parts.item_codes import ItemCodes
from recbole_bbqrec.model.sequential_recommender import mmgru4rec, mmsasrec, novabert
from recbole_bbqrec.quick_start import Prepared, build_model, prepare
from recbole_bbqrec.trainer import recbole_trainer
from recbole_bbqrec.trainer.registry import get_trainer_class

PADDED = ("MMGRU4Rec", "MMSASRec", "NOVABERT")


def everything_in_one_pass(lengths: Tensor, size: int) -> Iterator[tuple[Tensor, int]]:
    yield torch.arange(len(lengths)), common.MAX_ITEMS


def plain_item_vectors(codes: ItemCodes, items: Tensor | None = None) -> Tensor:
    return F.embedding_bag(codes.rows(items), codes.code_embedding, mode="mean")


@contextlib.contextmanager
def the_usual_way() -> Iterator[None]:
    """Models that are built and used in the block have no optimisations."""
    with contextlib.ExitStack() as stack:
        for module in (length_groups, novabert, history):
            patch = mock.patch.object(module, "length_groups", everything_in_one_pass)
            stack.enter_context(patch)
        for module in (mmgru4rec, mmsasrec, novabert):
            stack.enter_context(mock.patch.object(module, "replace_dropout", lambda model: None))
        stack.enter_context(mock.patch.object(recbole_trainer, "ScoresCollector", Collector))
        stack.enter_context(mock.patch.object(ItemCodes, "item_vectors", plain_item_vectors))
        yield


def data_of(options: argparse.Namespace, name: str) -> Prepared:
    overrides = {"data_path": options.data_path or "dataset", "seed": options.seed}
    return prepare(BBQRecConfig(name, options.dataset, overrides=overrides))


def step_of(options: argparse.Namespace, name: str, data: Prepared) -> Callable[[], None]:
    """Return a training step without the optimizer; each call takes the next batch."""
    model = build_model(data.config, data.train_data).train()
    if name in PADDED:
        batches, loss_of = data.train_data, model.calculate_loss
    else:
        trainer = get_trainer_class(name)(data.config, model)
        batches, loss_of = trainer.history_batches(data.train_data).epoch(0), model.history_loss
    # Repeat a few batches: the time to read them is not measured.
    kept = itertools.cycle(list(itertools.islice(batches, 4)))

    def step() -> None:
        with common.precision_of(options):
            loss = loss_of(next(kept))
        model.zero_grad()
        loss.backward()

    return step


def evaluation_of(data: Prepared) -> Callable[[], None]:
    """Return a function that runs a whole validation."""
    model = build_model(data.config, data.train_data).eval()
    trainer = get_trainer_class(data.config["model"])(data.config, model)
    return lambda: trainer.evaluate(data.valid_data, load_best_model=False)


def row(what: str, make: Callable[[], Callable[[], None]], repeats: int) -> tuple[Any, ...]:
    """Return a row of the table; ``make`` builds the function to time."""
    ours = make()
    with the_usual_way():
        reference = make()

    def usual() -> None:
        with the_usual_way():
            reference()

    medians = common.interleaved({"usual": usual, "ours": ours}, repeats)
    slow, fast = medians["usual"] * 1000, medians["ours"] * 1000
    return what, slow, fast, slow / fast


def main() -> None:
    options = common.arguments(__doc__, steps=12)
    if options.small:
        options.dataset, options.steps = "Mini", 3
    common.heading("Baselines", options, options.dataset)
    rows = []
    for name in (*PADDED, "VQRec"):
        make = partial(step_of, options, name, data_of(options, name))
        rows.append(row(f"{name}, step", make, options.steps))
    make = partial(evaluation_of, data_of(options, "ESASRec"))
    rows.append(row("ESASRec, validation of all users (float32)", make, 3))
    common.table(("what", "usual, ms", "ours, ms", "x"), rows)


if __name__ == "__main__":
    main()
