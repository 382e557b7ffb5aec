"""Negatives: who gets them by default, that the models then train, and that others get none."""

from __future__ import annotations

import pytest
import torch

from recbole_bbqrec.config.checks.negative_sampling import KEY, UNIFORM, needs_negatives
from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.model.registry import get_model
from recbole_bbqrec.model.specs import MODELS, model_names
from recbole_bbqrec.quick_start import prepare, run
from tests.support.runs import ROOT

SHORT = {
    "data_path": str(ROOT / "dataset"), "epochs": 1, "train_batch_size": 2048, "num_threads": 1,
    "show_progress": False, "state": "ERROR",
}  # fmt: skip
# Their evaluation takes a row for each user and item.
BRIEF = {"MAX_ITEM_LIST_LENGTH": 4, "eval_args": {"mode": "uni10"}}
NEEDING = [
    ("FPMC", {}), ("TransRec", {}), ("DIN", BRIEF), ("DIEN", BRIEF),
    ("SASRec", {"loss_type": "BPR"}), ("SINE", {"loss_type": "BPR"}),
]  # fmt: skip


def test_by_default_only_those_without_a_softmax_need_them():
    """The models' own defaults, told by RecBole's input types and the losses in the code."""
    needing = set()
    for model in model_names():
        config = BBQRecConfig.__new__(BBQRecConfig)
        config._init_parameters_category()
        config.yaml_loader = config._build_yaml_loader()
        config._load_internal_config_dict(model, get_model(model), "Mini")
        if needs_negatives(model, config.internal_config_dict.get("loss_type")):
            needing.add(model)
    assert needing == {"FPMC", "TransRec", "DIN", "DIEN"}
    with_bpr = {model for model in model_names() if needs_negatives(model, "BPR")}
    assert {"SASRec", "SINE", "Caser"} <= with_bpr
    assert with_bpr.isdisjoint({*MODELS, "BERT4Rec", "RepeatNet"})


@pytest.mark.slow
@pytest.mark.parametrize(("model", "options"), NEEDING)
def test_models_that_need_negatives_train_by_default(model, options, rundir):
    config = BBQRecConfig(model, "Mini", overrides=options)
    assert config.resolved[KEY] == config[KEY] == UNIFORM
    assert BBQRecConfig.from_text(config.to_text()).resolved == config.resolved
    assert run(model, "Mini", overrides={**SHORT, **options}, saved=False)["test_result"]


@pytest.mark.parametrize("model", ["SASRec", "SINE", "RepeatNet", "BERT4Rec", "BBQRec"])
def test_a_softmax_gets_none(model):
    assert BBQRecConfig(model, "Mini").resolved[KEY] is None


@pytest.mark.parametrize(("model", "options"), NEEDING)
def test_none_at_all_is_refused_where_they_are_needed(model, options, tmp_path):
    for none in (None, "None", {"distribution": "none"}):
        with pytest.raises(UserError, match=f"{KEY}.*{model}.*'sample_num':1") as error:
            BBQRecConfig(model, "Mini", overrides={**options, KEY: none})
        assert repr(none) in str(error.value)
    file = tmp_path / "none.yaml"
    file.write_text(f"{KEY}: ~\n")
    with pytest.raises(UserError, match=KEY):
        BBQRecConfig(model, "Mini", [file], options)
    config = BBQRecConfig(model, "Mini", [file], {**options, KEY: {"sample_num": 2}})
    assert config[KEY] == {**UNIFORM, "sample_num": 2}


def test_labels_of_the_data_need_no_negatives():
    overrides = {KEY: None, "threshold": {"rating": 4}}
    assert BBQRecConfig("DIN", "Mini", overrides=overrides).resolved[KEY] is None
    with pytest.raises(UserError, match=KEY):
        BBQRecConfig("FPMC", "Mini", overrides=overrides)


@pytest.mark.parametrize("asked", [{}, {KEY: None}])
@pytest.mark.parametrize(
    "load_col",
    [{"inter": ["user_id", "item_id", "timestamp", "label"]}, {"inter": "*"}, None],
)
def test_labels_in_the_file_are_trained_on(load_col, asked, rundir):
    """RecBole's sampling would overwrite them: a dislike would become a like."""
    text = (ROOT / "dataset" / "Mini" / "Mini.inter").read_text().splitlines()
    rows = [f"{line}\t{number % 3 == 0:d}" for number, line in enumerate(text[1:])]
    folder = rundir / "data" / "Mini"
    folder.mkdir(parents=True)
    (folder / "Mini.inter").write_text("\n".join([f"{text[0]}\tlabel:float", *rows]) + "\n")
    overrides = {**SHORT, "data_path": "data", "load_col": load_col, **asked}
    config = BBQRecConfig("DIN", "Mini", overrides=overrides)
    assert config.resolved[KEY] is None
    again = BBQRecConfig.from_text(config.to_text())
    assert again.resolved == config.resolved
    train = prepare(again).train_data
    labels = torch.cat([batch["label"] for batch in train])
    assert 0.2 < float(labels.mean()) < 0.5 and len(labels) < len(rows)


@pytest.mark.parametrize("load_col", [{"inter": "*"}, None])
def test_without_labels_in_the_file_negatives_are_sampled(load_col):
    overrides = {**SHORT, "load_col": load_col}
    assert BBQRecConfig("DIN", "Mini", overrides=overrides).resolved[KEY] == UNIFORM


def test_a_loss_type_that_the_model_does_not_read_does_not_count(tmp_path):
    file = tmp_path / "for-all.yaml"
    file.write_text("loss_type: CE\n")
    assert BBQRecConfig("TransRec", "Mini", [file])[KEY] == UNIFORM


def test_what_an_earlier_run_stored_can_be_read():
    values = {**BBQRecConfig("FPMC", "Mini").resolved, KEY: None}
    stored = BBQRecConfig("FPMC", "Mini", stored=values)
    assert stored[KEY] == UNIFORM
