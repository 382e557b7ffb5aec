"""The models that ``--model`` accepts, and what the package must know of each before it runs.

To add a model: an entry in :data:`MODELS`, its class, and ``properties/model/<name>.yaml``.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import pkgutil
import re
import sys
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import torch
from recbole.data import dataset as recbole_datasets
from recbole.model import sequential_recommender as recbole_sequential
from recbole.model.abstract_recommender import SequentialRecommender

from recbole_bbqrec.data.dataset import MultiModalDataset
from recbole_bbqrec.data.layout.prefix_dataset import PrefixDataset
from recbole_bbqrec.errors import UserError, did_you_mean

# RecBole's SINE switches this debugging aid on for the whole process when the package is imported;
# every model would train with it, at a good part of its speed.
torch.autograd.set_detect_anomaly(False)

_OURS = "recbole_bbqrec.model.sequential_recommender"


@dataclass(frozen=True)
class ModelSpec:
    """Facts about one model; its class is imported when :meth:`load` is called.

    Attributes:
        name: name of the model and of its class.
        module: dotted path of the module that has the class.
        two_phase: makes semantic IDs, then generates them (``GenerativeRecommender``).
        trains_on_histories: has ``HistoryTrainer`` (``HistoryRecommender``). With neither flag
            RecBole's training loop is used, one row per prefix.
        base: model whose options come before this one's, None for no model.
        is_variant: takes over what was tuned for a data set on ``base``.
        reads_features: reads the items' features, so needs a ``MultiModalDataset``.
        uses_id: an item is known by who chose it, not by its features alone.
        ranks_by_neighbours: scores items near the history's (``neighbour_graph``).
        trained_as: model that is trained exactly alike, whose checkpoints this one can load.
        reference: authors and year.
        own_class: a class of the user's own, see :func:`add_model`.
    """

    name: str
    module: str
    two_phase: bool = False
    trains_on_histories: bool = False
    base: str | None = None
    is_variant: bool = True
    reads_features: bool = True
    uses_id: bool = True
    ranks_by_neighbours: bool = False
    trained_as: str | None = None
    reference: str = ""
    own_class: type | None = None

    def load(self) -> type:
        """Import and return the model's class."""
        if self.own_class is not None:
            return self.own_class
        return getattr(importlib.import_module(self.module), self.name)


_BBQREC = ModelSpec(
    "BBQRec", f"{_OURS}.bbqrec",
    two_phase=True, ranks_by_neighbours=True, reference="Li et al. 2025",
)  # fmt: skip
_TIGER = ModelSpec(
    "TIGER", f"{_OURS}.tiger", base="BBQRec", is_variant=False,  # generator and decoding alike
    two_phase=True, uses_id=False, reference="Rajput et al. 2023",
)  # fmt: skip
_ESASREC = ModelSpec(
    "ESASRec", f"{_OURS}.esasrec",
    trains_on_histories=True, reads_features=False, reference="Tikhonovich et al. 2025",
)  # fmt: skip
_VQREC = ModelSpec(
    "VQRec", f"{_OURS}.vqrec",
    trains_on_histories=True, uses_id=False, reference="Hou et al. 2023",
)  # fmt: skip


def _variant(name: str, uses_id: bool = True) -> ModelSpec:
    """Return the spec of a variant of BBQRec."""
    return replace(_BBQREC, name=name, module=f"{_OURS}.variants", base="BBQRec", uses_id=uses_id)


def _with_neighbours(plain: ModelSpec) -> ModelSpec:
    """Return the spec of ``plain`` with the history's neighbours in its scores."""
    name = f"{plain.name}Neighbours"
    return replace(
        plain, name=name, module=f"{_OURS}.itemneighbours", base=plain.name, trained_as=plain.name,
        reads_features=True, uses_id=True, ranks_by_neighbours=True,
    )  # fmt: skip


#: Our models by name, in the order in which they are listed.
MODELS: dict[str, ModelSpec] = {
    model.name: model
    for model in (
        _BBQREC,
        _variant("BBQRecNoMIM"),
        _variant("BBQRecNoRec", uses_id=False),
        _variant("BBQRecNoU"),
        _variant("BBQRecS"),
        _variant("BBQRecE"),
        _variant("BBQRecNoID", uses_id=False),
        _variant("BBQRecNoText"),
        _variant("BBQRecNoImage"),
        _TIGER,
        replace(
            _TIGER, name="LETTER", module=f"{_OURS}.letter", base="TIGER", is_variant=True,
            reference="Wang et al. 2024",
        ),
        replace(
            _TIGER, name="CoST", base="TIGER", is_variant=True,
            reference="Zhu et al. 2024",
        ),
        ModelSpec("MMGRU4Rec", f"{_OURS}.mmgru4rec", reference="Hidasi et al. 2016"),
        ModelSpec("MMSASRec", f"{_OURS}.mmsasrec", reference="Kang and McAuley 2018"),
        ModelSpec("NOVABERT", f"{_OURS}.novabert", reference="Liu et al. 2021"),
        ModelSpec(
            "MISSRec", f"{_OURS}.missrec", trains_on_histories=True, reference="Wang et al. 2023"
        ),
        _VQREC,
        _ESASREC,
        replace(_VQREC, name="RPG", module=f"{_OURS}.rpg", reference="Hou et al. 2025"),
        ModelSpec(
            "ItemNeighbours", f"{_OURS}.itemneighbours",
            ranks_by_neighbours=True, reference="Sarwar et al. 2001",
        ),
        ModelSpec("STAR", f"{_OURS}.itemneighbours", reference="Lee et al. 2024"),
        ModelSpec("TGH", f"{_OURS}.itemneighbours", reference="Han et al. 2026"),
        _with_neighbours(_ESASREC),
        _with_neighbours(_VQREC),
    )
}  # fmt: skip

#: RecBole's models that cannot be run here -> the reason.
_NOT_RUN = {
    "S3Rec": "it is trained in two runs, the second of which loads the first by pickle",
    "KSR": "it needs a knowledge graph with embeddings of its entities, which is not supported",
    "GRU4RecKG": "it needs embeddings of a knowledge graph's entities, which is not supported",
}


@cache
def _recbole_models() -> dict[str, ModelSpec]:
    """RecBole's sequential recommenders by name, in alphabetical order."""
    specs = {}
    for module in pkgutil.iter_modules(recbole_sequential.__path__):
        source = getattr(recbole_sequential, module.name, None)
        for name in dir(source):
            if name.lower() == module.name and name[0].isupper() and name not in _NOT_RUN:
                path = f"{recbole_sequential.__name__}.{module.name}"
                reference = _recbole_reference(source.__doc__ or "")
                specs[name] = ModelSpec(name, path, reads_features=False, reference=reference)
    return dict(sorted(specs.items()))


def _recbole_reference(text: str) -> str:
    """Return authors and years from the "Reference:" in the docstring of a module of RecBole's."""
    listed = re.search(r"Reference:\s*(.*?)(?:\n\s*\n|Reference|$)", text, flags=re.DOTALL)
    papers = re.findall(r'([^"]+?)[\s,]*"[^"]*"[^"]*?(\d{4})\.?', listed[1] if listed else "")
    return "; ".join(" ".join(f"{authors} {year}".split()) for authors, year in papers)


def model_names() -> list[str]:
    """Return the names that ``--model`` accepts: ours, then RecBole's sequential recommenders."""
    return [*MODELS, *(name for name in _recbole_models() if name not in MODELS)]


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
    known = MODELS.get(name) or _recbole_models().get(name) or OWN_MODELS.get(name)
    if known is None and name in _named_elsewhere():
        known = OWN_MODELS[add_model(_named_elsewhere()[name])]
    if known is None and name in _NOT_RUN:
        raise UserError(
            f"RecBole's model `{name}` cannot be run here: {_NOT_RUN[name]}. Choose another, such "
            "as SASRec or, with features of the items, SASRecF; `models` lists all."
        )
    if known is None:
        names = [*model_names(), *_named_elsewhere()]
        raise UserError(
            f"Unknown sequential model `{name}`.{did_you_mean(name, names)} Known models: "
            f"{', '.join(names)}. A class of your own is --model=package.module:{name}, or in "
            f"Python recbole_bbqrec.add_model({name})."
        )
    return known


def get_model(name: str) -> type:
    """Return the class of the model ``name``.

    Raises:
        UserError: no model of that name, here or in RecBole.
    """
    return spec(name).load()


# classes of the user's own ----------------------------------------------------------------------

#: Classes of the user's own that this process has met, by their names.
OWN_MODELS: dict[str, ModelSpec] = {}
#: Entry points of installed packages: the name of a class, and `package.module:Class`.
ENTRY_POINTS = "recbole_bbqrec.models"
#: Environment variable with `package.module:Class` words, for the processes that `compare` starts.
OWN_MODELS_VARIABLE = "RECBOLE_BBQREC_MODELS"


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
    listed = MODELS.get(name) or _recbole_models().get(name)
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
        known = MODELS.get(base.__name__) or _recbole_models().get(base.__name__)
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


def _named_elsewhere() -> dict[str, str]:
    """Return name and path of the classes of installed packages and of the parent process."""
    points: Any = entry_points()
    if hasattr(points, "select"):
        group = points.select(group=ENTRY_POINTS)
    else:  # Python 3.9
        group = points.get(ENTRY_POINTS, ())
    paths = [*(point.value for point in group), *os.environ.get(OWN_MODELS_VARIABLE, "").split()]
    return {path.rpartition(":")[2]: path for path in paths}


def own_sources() -> dict[str, Path]:
    """Return the files that have the classes of the user's own, where there are files."""
    files = {}
    for name, facts in OWN_MODELS.items():
        with contextlib.suppress(OSError, TypeError):  # a class of a notebook
            files[name] = Path(inspect.getfile(facts.load()))
    return files


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
