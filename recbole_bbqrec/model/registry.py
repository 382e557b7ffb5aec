"""Model name -> model and dataset class; ours first, RecBole's own otherwise."""

from __future__ import annotations

import importlib
import pkgutil

import torch
from recbole.data import dataset as recbole_datasets
from recbole.model import sequential_recommender as recbole_sequential
from recbole.utils import get_model as get_recbole_model

from recbole_bbqrec.errors import UserError, did_you_mean

# RecBole's SINE switches this debugging aid on for the whole process when the package is imported;
# every model would train with it, at a good part of its speed.
torch.autograd.set_detect_anomaly(False)

_OURS = "recbole_bbqrec.model.sequential_recommender"

#: Our registered models: name -> module below ``model/sequential_recommender``.
MODELS: dict[str, str] = {
    "BBQRec": "bbqrec",
    "BBQRecNoMIM": "variants",
    "BBQRecNoRec": "variants",
    "BBQRecNoU": "variants",
    "BBQRecS": "variants",
    "BBQRecE": "variants",
    "BBQRecNoID": "variants",
    "BBQRecNoText": "variants",
    "BBQRecNoImage": "variants",
    "TIGER": "tiger",
    "LETTER": "letter",
    "CoST": "cost",
    "MMGRU4Rec": "mmgru4rec",
    "MMSASRec": "mmsasrec",
    "NOVABERT": "novabert",
    "MISSRec": "missrec",
    "VQRec": "vqrec",
    "ESASRec": "esasrec",
    "RPG": "rpg",
    "ItemNeighbours": "itemneighbours",
    "ESASRecNeighbours": "itemneighbours",
    "VQRecNeighbours": "itemneighbours",
}


def model_names() -> list[str]:
    """Names that ``--model`` accepts: ours, then RecBole's sequential recommenders."""
    theirs = []
    for module in pkgutil.iter_modules(recbole_sequential.__path__):
        source = getattr(recbole_sequential, module.name, None)
        theirs += [n for n in dir(source) if n.lower() == module.name and n[0].isupper()]
    return [*MODELS, *sorted(set(theirs))]


def is_ours(model: str) -> bool:
    return model in MODELS


def get_model(name: str) -> type:
    """The class registered under ``name``.

    Raises:
        UserError: no model of that name, here or in RecBole.
    """
    if name in MODELS:
        return getattr(importlib.import_module(f"{_OURS}.{MODELS[name]}"), name)
    known = model_names()
    if name not in known:
        raise UserError(
            f"Unknown sequential model `{name}`.{did_you_mean(name, known)} Known models: "
            f"{', '.join(known)}."
        )
    return get_recbole_model(name)


def property_bases(model: type) -> tuple[list[str], list[str]]:
    """Models whose options ``model`` starts from, the most basic first; and those it varies.

    A class names the next one in ``properties_base``. What was tuned for a data set on one of
    them holds for its variants (subclasses), not for a model that only shares its generator.
    """
    bases: list[str] = []
    name: str | None = getattr(model, "properties_base", None)
    while name is not None:
        bases.insert(0, name)
        name = getattr(get_model(name), "properties_base", None)
    return bases, [base for base in bases if issubclass(model, get_model(base))]


def get_dataset_class(model: str) -> type:
    """The dataset class a model works on: ours if it asks for one, RecBole's choice otherwise."""
    chosen = getattr(get_model(model), "dataset_class", None)
    if chosen is not None:
        return chosen
    return getattr(recbole_datasets, f"{model}Dataset", recbole_datasets.SequentialDataset)
