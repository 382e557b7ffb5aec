"""Models by name or class: their classes, data set classes and bases; classes of a user's own."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import sys
from dataclasses import replace
from pathlib import Path

import recbole.model.sequential_recommender  # noqa: F401 - before the line that follows on it
import torch
from recbole.data import dataset as recbole_datasets
from recbole.model.abstract_recommender import SequentialRecommender

from recbole_bbqrec.data.dataset import MultiModalDataset
from recbole_bbqrec.data.layout.prefix_dataset import PrefixDataset
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.model.specs import (
    MODELS,
    OWN_MODELS,
    ModelSpec,
    check_name,
    find,
    named_elsewhere,
    recbole_models,
)

# RecBole's SINE switches this debugging aid on for the whole process when the package of its models
# is imported; every model would train with it, at a good part of its speed.
torch.autograd.set_detect_anomaly(False)


def is_ours(model: str) -> bool:
    """Return True for a model of this package, or one of the user's own that extends it."""
    own = OWN_MODELS.get(model)
    if own is None:
        return model in MODELS
    return own.base in MODELS or own.two_phase or own.trains_on_histories


def spec(name: str | type) -> ModelSpec:
    """Return what is known of a model, ours before RecBole's before the user's own.

    Args:
        name: its name, `package.module:Class`, or the class.

    Raises:
        UserError: no such model.
    """
    if isinstance(name, type) or ":" in name:
        name = add_model(name)
    known = find(name)
    if known is None and name in named_elsewhere():
        known = OWN_MODELS[add_model(named_elsewhere()[name])]
    if known is None:
        check_name(name)
    assert known is not None  # else it was refused
    return known


def get_model(name: str) -> type:
    """Return the class of the model ``name``.

    Raises:
        UserError: no model of that name, here or in RecBole.
    """
    return spec(name).load()


# classes of the user's own ----------------------------------------------------------------------


def add_model(model: type | str) -> str:
    """Make a class of one's own known by its name, which is returned.

    It extends a model of this package or of RecBole, whose options and training it takes, or
    RecBole's ``SequentialRecommender``. Its own options and their defaults are in ``<Class>.yaml``
    beside its module.

    Args:
        model: the class, or `package.module:Class`.

    Raises:
        UserError: there is no such class, it is no sequential recommender, or its name is taken.
    """
    found = _import(model) if isinstance(model, str) else model
    name = found.__name__
    if not issubclass(found, SequentialRecommender):
        raise UserError(
            f"Model `{model}` is no sequential recommender; expected a class that extends "
            "RecBole's SequentialRecommender, or a model listed by `models`."
        )
    listed = MODELS.get(name) or recbole_models().get(name)
    if listed is None:
        OWN_MODELS[name] = _own_spec(found)
    elif listed.load() is not found:
        raise UserError(f"Model `{model}`: the name {name} is taken; give your class another one.")
    return name


def _own_spec(model: type) -> ModelSpec:
    from recbole_bbqrec.model.base.generative import GenerativeRecommender
    from recbole_bbqrec.model.base.history_model import HistoryRecommender

    facts = ModelSpec(
        model.__name__, model.__module__,
        two_phase=issubclass(model, GenerativeRecommender),
        trains_on_histories=issubclass(model, HistoryRecommender),
        reads_features=issubclass(model, (GenerativeRecommender, HistoryRecommender)),
        own_class=model,
    )  # fmt: skip
    for base in model.__mro__[1:]:
        known = MODELS.get(base.__name__) or recbole_models().get(base.__name__)
        if known is not None and known.load() is base:
            return replace(
                facts, base=known.name, reads_features=known.reads_features,
                uses_id=known.uses_id, ranks_by_neighbours=known.ranks_by_neighbours,
            )  # fmt: skip
    return facts


def _import(path: str) -> type:
    module, _, name = path.partition(":")
    if os.getcwd() not in sys.path:  # as `python -m` has it
        sys.path.append(os.getcwd())
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, ValueError, AttributeError) as error:
        raise UserError(
            f"Model `{path}` cannot be imported: {error}. Expected package.module:Class, with the "
            f"package installed or in {os.getcwd()}."
        ) from error
    if not isinstance(found, type):
        raise UserError(f"Model `{path}` is {found!r}; expected a class.")
    return found


def own_sources() -> dict[str, Path]:
    """Return the files that have the classes of the user's own, where there are files."""
    files = {}
    for name, facts in OWN_MODELS.items():
        with contextlib.suppress(OSError, TypeError):  # a class of a notebook
            files[name] = Path(inspect.getfile(facts.load()))
    return files


def init_command(model: str) -> str:
    """Return the command that writes all options of a model; it needs no checkout."""
    own = spec(model).own_class
    name = f"{own.__module__}:{model}" if own else model
    return f"`python -m recbole_bbqrec init NAME --model={name}`"


def property_bases(model: str) -> tuple[list[str], list[str]]:
    """Return the models whose options ``model`` starts from, the most basic first.

    The second list holds those of them whose options tuned for a data set it takes over, too: the
    models it is a variant of, not one that it only shares the generator with.
    """
    bases: list[str] = []
    variant_of: list[str] = []
    current, is_variant = spec(model), True
    while current.base is not None:
        bases.insert(0, current.base)
        is_variant = is_variant and current.is_variant
        if is_variant:
            variant_of.insert(0, current.base)
        current = spec(current.base)
    return bases, variant_of


def get_dataset_class(model: str) -> type:
    """Return the dataset class of a model: ours for ours, else RecBole's choice."""
    facts = spec(model)
    if facts.reads_features or facts.trains_on_histories:
        return MultiModalDataset if facts.reads_features else PrefixDataset
    named = facts.base or model  # an own class has the dataset of the RecBole model it extends
    return getattr(recbole_datasets, f"{named}Dataset", recbole_datasets.SequentialDataset)
