"""No option that a model does read is refused as one that it does not."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import pytest
import recbole

import recbole_bbqrec
from recbole_bbqrec.config.config import BBQRecConfig, check_options_read, options_read
from recbole_bbqrec.config.options import MODEL_OPTIONS, OF_EVERY_RUN
from recbole_bbqrec.config.values import read_yaml
from recbole_bbqrec.config.yaml_files import overlay_files
from recbole_bbqrec.model.registry import get_model, property_bases, spec
from recbole_bbqrec.model.specs import MODELS, model_names
from recbole_bbqrec.quick_start import build_model, prepare
from recbole_bbqrec.trainer.history_trainer import HistoryTrainer
from recbole_bbqrec.trainer.registry import get_trainer_class
from recbole_bbqrec.trainer.two_phase_trainer import TwoPhaseTrainer
from tests.support.runs import ROOT

HERE = {"data_path": str(ROOT / "dataset"), "state": "WARNING"}
TRAINERS = Path(recbole_bbqrec.__file__).parent / "trainer"


def own_options(model: str) -> set[str]:
    """The keys of the YAML files of a model and its bases, ours and RecBole's."""
    theirs = Path(recbole.__file__).parent / "properties" / "model" / f"{model}.yaml"
    files = [*overlay_files(model, "Mini", *property_bases(model))]
    return {key for path in [*files, theirs] if path.is_file() for key in read_yaml(path)}


@pytest.mark.parametrize("model", list(MODELS))
def test_every_option_of_our_models_can_be_given(model):
    """The whole configuration is built, from explicit values."""
    default = BBQRecConfig(model, "Mini", overrides=HERE)
    given = {key: default.resolved[key] for key in own_options(model)}
    again = BBQRecConfig(model, "Mini", overrides={**given, **HERE})
    assert again.resolved == default.resolved
    # a resolved configuration, RecBole's `enable_amp: False` in it, is one to start from
    assert BBQRecConfig(model, "Mini", overrides=default.resolved).resolved == default.resolved


def test_every_option_of_recboles_models_can_be_given():
    for model in model_names():
        check_options_read(model, "Mini", dict.fromkeys(own_options(model)))


@pytest.mark.parametrize(
    "model",
    [name for name in MODELS if not re.match("BBQRec.", name)],  # the variants have its options
)
def test_what_a_model_asks_for_is_what_it_reads(model, rundir, monkeypatch):
    """Keys asked for while model and trainer are made, and those in the code that trains."""
    asked, original = set(), BBQRecConfig.__getitem__

    def spy(self, key):
        asked.add(key)
        return original(self, key)

    monkeypatch.setattr(BBQRecConfig, "__getitem__", spy)
    config = BBQRecConfig(model, "Mini", overrides=HERE)
    trainer = get_trainer_class(model)(config, build_model(config, prepare(config).train_data))
    for kind in (*type(trainer).__mro__, *get_model(model).__mro__):
        if kind.__module__.startswith("recbole_bbqrec."):
            asked |= keys_in(Path(inspect.getfile(kind)))
    if isinstance(trainer, TwoPhaseTrainer):
        asked |= keys_in(TRAINERS / "phases" / "tokenize_phase.py") | keys_in(
            TRAINERS / "phases" / "generate_phase.py"
        )
    missing = (asked & {*MODEL_OPTIONS}) - OF_EVERY_RUN - options_read(model, "Mini")
    assert len(asked & {*MODEL_OPTIONS}) > 3 and not missing


def keys_in(source: Path) -> set[str]:
    return set(re.findall(r"""config\[["'](\w+)["']\]""", source.read_text(encoding="utf-8")))


def test_enable_amp_is_read_where_recboles_loop_trains():
    for model in (*MODELS, "SASRec", "SINE"):
        own_loop = issubclass(get_trainer_class(model), (HistoryTrainer, TwoPhaseTrainer))
        assert ("enable_amp" in options_read(model, "Mini")) is not own_loop
        assert ("precision" in options_read(model, "Mini")) is own_loop


#: What RecBole derives or sets itself.
DERIVED = {"device", "MASK_INDEX", "MASK_ITEM_SEQ", "POS_ITEMS", "NEG_ITEMS", "INVERSE_ITEM_SEQ"}


@pytest.mark.parametrize("model", [name for name in model_names() if name not in MODELS])
def test_every_option_that_a_model_of_recboles_reads_can_be_given(model):
    """Options that RecBole's YAML file of the model lacks count, too, as FEARec's `contrast`."""
    source = inspect.getsource(importlib.import_module(spec(model).module))
    asked = set(re.findall(r"""config\[\s*["'](\w+)["']\s*\]""", source))
    assert asked - DERIVED <= options_read(model, "Mini"), model
    assert asked


def test_whole_numbers_are_taken_for_fractions():
    """FOSSIL's code raises whole numbers to the power of -alpha, which torch refuses of whole."""
    config = BBQRecConfig("FOSSIL", "Mini", overrides={"alpha": 1})
    assert isinstance(config["alpha"], float)
