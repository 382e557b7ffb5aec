"""Models that ``--model`` accepts, and what is known of each before it is imported.

Neither torch nor RecBole is imported here, so that a misspelt name is refused at once. To add a
model: an entry in :data:`MODELS`, its class, and ``properties/model/<name>.yaml``.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import re
import warnings
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from recbole_bbqrec.errors import UserError, did_you_mean

_OURS = "recbole_bbqrec.model.sequential_recommender"
_RECBOLE = "recbole.model.sequential_recommender"


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
NOT_RUN = {
    "S3Rec": "it is trained in two runs, the second of which loads the first by pickle",
    "KSR": "it needs a knowledge graph with embeddings of its entities, which is not supported",
    "GRU4RecKG": "it needs embeddings of a knowledge graph's entities, which is not supported",
}


@cache
def recbole_models() -> dict[str, ModelSpec]:
    """Return RecBole's sequential recommenders by name, in alphabetical order.

    Their modules are read, not imported: that takes seconds.
    """
    specs = {}
    found = importlib.util.find_spec("recbole")
    for root in (found.submodule_search_locations or ()) if found else ():
        for path in sorted(Path(root, *_RECBOLE.split(".")[1:]).glob("*.py")):
            with warnings.catch_warnings():  # of backslashes in RecBole's docstrings
                warnings.simplefilter("ignore")
                tree = ast.parse(path.read_text(encoding="utf-8"))
            for node in tree.body:
                name = node.name if isinstance(node, ast.ClassDef) else ""
                if name.lower() == path.stem and name not in NOT_RUN:
                    reference = _recbole_reference(ast.get_docstring(tree, clean=False) or "")
                    module = f"{_RECBOLE}.{path.stem}"
                    specs[name] = ModelSpec(name, module, reads_features=False, reference=reference)
    return dict(sorted(specs.items()))


def _recbole_reference(text: str) -> str:
    """Return authors and years from the "Reference:" in the docstring of a module of RecBole's."""
    listed = re.search(r"Reference:\s*(.*?)(?:\n\s*\n|Reference|$)", text, flags=re.DOTALL)
    papers = re.findall(r'([^"]+?)[\s,]*"[^"]*"[^"]*?(\d{4})\.?', listed[1] if listed else "")
    return "; ".join(" ".join(f"{authors} {year}".split()) for authors, year in papers)


def model_names() -> list[str]:
    """Return the names that ``--model`` accepts: ours, then RecBole's sequential recommenders."""
    return [*MODELS, *(name for name in recbole_models() if name not in MODELS)]


# classes of the user's own ----------------------------------------------------------------------

#: Classes of the user's own that this process has met, by their names.
OWN_MODELS: dict[str, ModelSpec] = {}
#: Entry points of installed packages: the name of a class, and `package.module:Class`.
ENTRY_POINTS = "recbole_bbqrec.models"
#: Environment variable with `package.module:Class` words, for the processes that `compare` starts.
OWN_MODELS_VARIABLE = "RECBOLE_BBQREC_MODELS"


def named_elsewhere() -> dict[str, str]:
    """Return name and path of the classes of installed packages and of the parent process."""
    points: Any = entry_points()
    if hasattr(points, "select"):
        group = points.select(group=ENTRY_POINTS)
    else:  # Python 3.9
        group = points.get(ENTRY_POINTS, ())
    paths = [*(point.value for point in group), *os.environ.get(OWN_MODELS_VARIABLE, "").split()]
    return {path.rpartition(":")[2]: path for path in paths}


def find(name: str) -> ModelSpec | None:
    """Return what is known of a model that needs no import: ours before RecBole's before own."""
    return MODELS.get(name) or recbole_models().get(name) or OWN_MODELS.get(name)


def check_name(name: str) -> None:
    """Refuse a name that is no model's; `package.module:Class` is not looked at.

    Raises:
        UserError: no such model.
    """
    if ":" in name or find(name) is not None or name in named_elsewhere():
        return
    if name in NOT_RUN:
        raise UserError(
            f"RecBole's model `{name}` cannot be run here: {NOT_RUN[name]}. Choose another, such "
            "as SASRec or, with features of the items, SASRecF; `models` lists all."
        )
    names = [*model_names(), *named_elsewhere()]
    raise UserError(
        f"Unknown sequential model `{name}`.{did_you_mean(name, names)} Known models: "
        f"{', '.join(names)}. A class of your own is --model=package.module:{name}, or in "
        f"Python recbole_bbqrec.add_model({name})."
    )
