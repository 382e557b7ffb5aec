"""The table of models against the classes that it describes."""

from __future__ import annotations

import inspect
import re
import sys

import pytest
from recbole.data.dataset import SequentialDataset
from recbole.utils import get_model as get_recbole_model

from recbole_bbqrec.config.yaml_files import properties_directory
from recbole_bbqrec.data.dataset import MultiModalDataset
from recbole_bbqrec.data.layout.prefix_dataset import PrefixDataset
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.model.base.generative import GenerativeRecommender
from recbole_bbqrec.model.base.history_model import HistoryRecommender
from recbole_bbqrec.model.parts.neighbour_model import WithNeighbours
from recbole_bbqrec.model.registry import get_dataset_class, get_model, property_bases, spec
from recbole_bbqrec.model.sequential_recommender.bbqrec import BBQRec
from recbole_bbqrec.model.specs import MODELS, model_names

RECBOLES = [name for name in model_names() if name not in MODELS]


def reference_in(model: type) -> str:
    """Authors and year from the "Reference:" in a docstring, of the class or one it varies."""
    for source in model.__mro__:
        match = re.search(r"References?: ([^,]+),.*?(\d{4})", source.__doc__ or "", re.DOTALL)
        if match:
            return " ".join(f"{match[1]} {match[2]}".split())
    return ""


@pytest.mark.parametrize("name", list(MODELS))
def test_flags_agree_with_the_class(name):
    facts, model = MODELS[name], get_model(name)
    assert (facts.name, facts.module) == (name, model.__module__) == (model.__name__, facts.module)
    assert spec(name) is facts
    assert facts.two_phase == issubclass(model, GenerativeRecommender)
    assert facts.trains_on_histories == issubclass(model, HistoryRecommender)
    assert (facts.trained_as is not None) == issubclass(model, WithNeighbours)
    assert callable(model.check_options)
    assert reference_in(model) == facts.reference != ""
    of_histories = PrefixDataset if facts.trains_on_histories else SequentialDataset
    assert get_dataset_class(name) is (MultiModalDataset if facts.reads_features else of_histories)
    assert (properties_directory() / "model" / f"{name}.yaml").is_file()
    if issubclass(model, BBQRec):
        assert facts.uses_id == model.use_id


@pytest.mark.parametrize("name", [name for name, facts in MODELS.items() if facts.base])
def test_a_model_takes_over_the_tuning_of_what_it_is_a_variant_of(name):
    facts, model = MODELS[name], get_model(name)
    assert facts.is_variant == issubclass(model, get_model(facts.base))
    bases, variant_of = property_bases(name)
    assert bases[-1] == facts.base
    assert variant_of == [base for base in bases if issubclass(model, get_model(base))]


def test_a_model_that_loads_anothers_checkpoint_is_that_model_and_more():
    pairs = {name: facts.trained_as for name, facts in MODELS.items() if facts.trained_as}
    assert pairs == {"ESASRecNeighbours": "ESASRec", "VQRecNeighbours": "VQRec"}
    for name, trained_as in pairs.items():
        assert issubclass(get_model(name), get_model(trained_as))
        assert MODELS[name].trains_on_histories == MODELS[trained_as].trains_on_histories


def test_every_model_class_is_in_the_table():
    modules = {facts.module for facts in MODELS.values()}
    for name in MODELS:
        get_model(name)  # imports its module
    classes = {
        name
        for module in modules
        for name, value in vars(sys.modules[module]).items()
        if inspect.isclass(value) and value.__module__ == module and not name.startswith("_")
        if hasattr(value, "full_sort_predict")
    }
    assert classes == set(MODELS)


@pytest.mark.parametrize("name", RECBOLES)
def test_recboles_models_have_recboles_class_and_training(name):
    facts = spec(name)
    assert facts.load() is get_recbole_model(name)
    assert not (facts.two_phase or facts.trains_on_histories or facts.reads_features)
    assert not facts.ranks_by_neighbours and facts.base is None and facts.trained_as is None
    assert issubclass(get_dataset_class(name), SequentialDataset)
    assert get_dataset_class(name) is not MultiModalDataset


def test_recboles_models_are_listed_after_ours():
    assert model_names() == [*MODELS, *sorted(RECBOLES)]
    assert {"SASRec", "GRU4Rec", "BERT4Rec", "SINE"} <= set(RECBOLES)


@pytest.mark.parametrize("name", ["S3Rec", "KSR", "GRU4RecKG"])
def test_models_that_cannot_be_run_are_not_listed(name):
    assert name not in model_names()
    with pytest.raises(UserError, match=f"`{name}` cannot be run here: it .*SASRecF"):
        spec(name)


def test_an_unknown_model_is_refused_with_a_hint():
    with pytest.raises(UserError, match="Unknown sequential model `SASrec`.*`SASRec`.*Known"):
        spec("SASrec")
