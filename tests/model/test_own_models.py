"""Classes of the user's own: given in Python, by path, or by an installed package."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from recbole.model.sequential_recommender.sasrec import SASRec

from recbole_bbqrec import add_model, load_run, run
from recbole_bbqrec.cli.main import main
from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.data.dataset import MultiModalDataset
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.experiment.store.store import Run, RunStore
from recbole_bbqrec.model import specs
from recbole_bbqrec.model.registry import get_dataset_class, is_ours, property_bases, spec
from recbole_bbqrec.model.sequential_recommender.bbqrec import BBQRec
from recbole_bbqrec.model.sequential_recommender.esasrec import ESASRec
from recbole_bbqrec.model.specs import OWN_MODELS
from tests.support.runs import ROOT

MODULE = """\
from recbole.model.sequential_recommender.sasrec import SASRec


class MyOwn(SASRec):
    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.twist = config["twist"]

    def calculate_loss(self, interaction):
        return super().calculate_loss(interaction) * self.twist


class NoModel:
    pass
"""
QUICK = {"epochs": 1, "data_path": str(ROOT / "dataset"), "show_progress": False}


@pytest.fixture(autouse=True)
def forget_own_models():
    yield
    OWN_MODELS.clear()


@pytest.fixture
def package(rundir, monkeypatch):
    """A module in the working directory, and the options of its model beside it."""
    monkeypatch.syspath_prepend(str(rundir))
    Path("mine.py").write_text(MODULE)
    Path("MyOwn.yaml").write_text("twist: 2.0\nhidden_size: 32\n")
    sys.modules.pop("mine", None)
    yield "mine:MyOwn"
    sys.modules.pop("mine", None)


def test_a_class_takes_the_options_and_training_of_what_it_extends():
    class Mine(BBQRec):
        pass

    class Causal(ESASRec):
        pass

    class Plain(SASRec):
        pass

    for model, base, two_phase, ours in (
        (Mine, "BBQRec", True, True),
        (Causal, "ESASRec", False, True),
        (Plain, "SASRec", False, False),
    ):
        name = add_model(model)
        facts = spec(name)
        assert facts.load() is model and (facts.two_phase, is_ours(name)) == (two_phase, ours)
        assert facts.base == base and property_bases(name)[0][-1] == base
        config = BBQRecConfig(model, "Mini")
        plain = BBQRecConfig(base, "Mini")
        assert {**config.resolved, "model": base} == plain.resolved
    assert get_dataset_class("Mine") is MultiModalDataset
    assert get_dataset_class("Plain") is get_dataset_class("SASRec")
    with pytest.raises(UserError, match="`n_layers` is 0"):
        BBQRecConfig(Plain, "Mini", overrides={"n_layers": 0})


def test_a_path_names_a_class_and_its_options(package):
    config = BBQRecConfig(package, "Mini", overrides={"twist": 3.0})
    assert (config["model"], config["twist"], config["hidden_size"]) == ("MyOwn", 3.0, 32)
    assert config["inner_size"] == BBQRecConfig("SASRec", "Mini")["inner_size"]
    with pytest.raises(UserError, match="Unknown option `twst`.*Did you mean `twist`"):
        BBQRecConfig(package, "Mini", overrides={"twst": 1})


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("mine:Other", "cannot be imported.*no attribute 'Other'"),
        ("nowhere.at_all:Model", "cannot be imported: No module named 'nowhere'"),
        (":Model", "cannot be imported"),
        ("mine:NoModel", "is no sequential recommender"),
        ("mine:SASRec.x", "cannot be imported"),
    ],
)
def test_what_is_no_model_is_refused(package, path, says):
    with pytest.raises(UserError, match=says):
        spec(path)


def test_a_name_that_is_taken_is_refused():
    taken = type("TIGER", (BBQRec,), {})
    with pytest.raises(UserError, match="the name TIGER is taken"):
        spec(taken)
    assert spec(SASRec).name == "SASRec" and spec(BBQRec).name == "BBQRec"


def test_entry_points_name_models_of_other_packages(package, monkeypatch):
    class Points(list):
        def select(self, group):
            return self if group == "recbole_bbqrec.models" else []

    point = type("Point", (), {"name": "MyOwn", "value": package})
    monkeypatch.setattr(specs, "entry_points", lambda: Points([point]))
    assert spec("MyOwn").load().__name__ == "MyOwn"


def test_an_unknown_name_says_how_to_give_a_class_of_ones_own():
    with pytest.raises(UserError, match=r"package\.module:MyOwn.*add_model\(MyOwn\)"):
        spec("MyOwn")


@pytest.mark.slow
def test_own_classes_run_reload_and_compare_for_real(package, capsys):
    result = run(spec(package).load(), "Mini", overrides={**QUICK, "twist": 3.0})
    assert result["model"] == "MyOwn" and "saved/MyOwn-" in result["files"]["model"]
    assert load_run(result["files"]["model"]).model.twist == 3.0
    small = {"data_path": QUICK["data_path"], "epochs": 1, "MAX_ITEM_LIST_LENGTH": 5}
    arguments = [f"--{name}={value}" for name, value in small.items()]
    code = main(["compare", f"--models={package}", "--datasets=Mini", *arguments])
    assert code == 0, capsys.readouterr()
    assert "MyOwn" in capsys.readouterr().out
    store = RunStore("runs")
    again = Run("MyOwn", "Mini", small)
    assert store.find(again) is not None
    Path("mine.py").write_text(MODULE + "# another version of it\n")
    assert store.find(again) is None
