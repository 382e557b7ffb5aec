"""RecBole's own models through our command: the same numbers, safe files, exact resumption."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_seed

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.quick_start import load_data_and_model, run
from recbole_bbqrec.run_files.epochs import read_epochs
from recbole_bbqrec.trainer.recbole_trainer import SafeCheckpoints
from tests.support.contract import EVERY_EVENT, RECBOLES, WITH_FIELDS, write_cut
from tests.support.resume import check_resumed_equals_uninterrupted

COMMON = {"epochs": 2, "train_batch_size": 512, "seed": 7, "show_progress": False, "state": "ERROR"}


def recbole_alone(resolved: dict) -> dict:
    """RecBole's run_recbole, step by step, without its quick_start module (which needs ray)."""
    model_name = resolved["model"]
    derived = {"model", "dataset", "resume", "tune_allocator", "num_threads", "mask_history"}
    values = {k: v for k, v in resolved.items() if k not in derived}
    config = Config(model_name, resolved["dataset"], config_dict=values)
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    train_data, valid_data, test_data = data_preparation(config, dataset)
    init_seed(config["seed"] + config["local_rank"], config["reproducibility"])
    model = get_model(model_name)(config, train_data._dataset)
    trainer = get_trainer(config["MODEL_TYPE"], model_name)(config, model)
    trainer._save_checkpoint = lambda *args, **kwargs: best.update(
        {k: v.clone() for k, v in model.state_dict().items()}
    )
    best: dict = {}
    _, valid = trainer.fit(train_data, valid_data, saved=True, show_progress=False)
    model.load_state_dict(best)
    test = trainer.evaluate(test_data, load_best_model=False)
    return {"valid": dict(valid), "test": dict(test)}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(RECBOLES))
def test_metrics_equal_recbole_bit_for_bit(name, rundir, tiny, monkeypatch):
    monkeypatch.setattr("sys.argv", ["pytest"])
    overrides = {**COMMON, **RECBOLES[name], "data_path": tiny["data_path"]}
    ours = run(name, "Mini", overrides=overrides)
    state = torch.load(ours["files"]["model"], weights_only=True)  # loads safely
    assert state["model"] == name

    from recbole_bbqrec.config.config import BBQRecConfig

    theirs = recbole_alone(BBQRecConfig(name, "Mini", overrides=overrides).resolved)
    assert ours["test_result"] == theirs["test"]
    assert ours["best_valid_result"] == theirs["valid"]


@pytest.mark.slow
@pytest.mark.parametrize("name", list(WITH_FIELDS))
def test_models_with_a_layer_of_item_fields_reload_and_resume(name, rundir, tiny, monkeypatch):
    """RecBole lists that layer, a module, among the other parameters of a checkpoint."""
    write_cut(Path("data"))
    titles = Path("data/Mini/Mini.titles.tsv").read_text().splitlines()[1:]
    rows = [f"{token}\t{title.split()[0]}" for token, title in (t.split("\t") for t in titles)]
    Path("data/Mini/Mini.item").write_text("\n".join(["item_id:token\tclass:token", *rows]) + "\n")
    overrides = {
        **COMMON, **WITH_FIELDS[name], **EVERY_EVENT, "data_path": "data",
        "selected_features": ["class"],
        "load_col": {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "class"]},
    }  # fmt: skip
    result = run(name, "Mini", overrides=overrides)
    config, model, _, _, _, test_data = load_data_and_model(result["files"]["model"])
    trainer = SafeCheckpoints(config, model)
    assert dict(trainer.evaluate(test_data, load_best_model=False)) == result["test_result"]
    check_resumed_equals_uninterrupted(
        lambda **resume: run(name, "Mini", overrides={**overrides, "epochs": 3, **resume}),
        monkeypatch,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SASRec", "BERT4Rec"])  # BERT4Rec draws from Python's random
def test_resumed_equals_uninterrupted(name, rundir, tiny, monkeypatch):
    overrides = {**COMMON, **RECBOLES[name], "data_path": tiny["data_path"], "epochs": 3}
    check_resumed_equals_uninterrupted(
        lambda **resume: run(name, "Mini", overrides={**overrides, **resume}), monkeypatch
    )


@pytest.mark.slow
def test_epoch_losses_are_means_over_the_steps(rundir, tiny, monkeypatch):
    """RecBole returns the sum over the batches; the file holds means, comparable across models."""
    from recbole.trainer import Trainer

    sums, original = [], Trainer._train_epoch

    def spy(self, train_data, *args):
        loss = original(self, train_data, *args)
        sums.append(loss / len(train_data))
        return loss

    monkeypatch.setattr(Trainer, "_train_epoch", spy)
    overrides = {**COMMON, **RECBOLES["SASRec"], "data_path": tiny["data_path"]}
    result = run("SASRec", "Mini", overrides=overrides)
    lines = read_epochs(Path(result["files"]["epochs"]))
    assert [line["terms"]["loss"] for line in lines] == pytest.approx(sums)
    assert all(line["learning_rate"] == 0.001 for line in lines)
    assert all(line["seconds"]["train"] > 0 and line["peak_memory_mib"] for line in lines)


def test_divergence_names_the_option(rundir, tiny):
    overrides = {**COMMON, **RECBOLES["SASRec"], "data_path": tiny["data_path"]}
    with pytest.raises(UserError, match="`learning_rate` is 1e.30: the training loss is nan"):
        run("SASRec", "Mini", overrides={**overrides, "learning_rate": 1e30})


@pytest.mark.slow
def test_masked_history_never_ranks_a_history_item(rundir, tiny):
    overrides = {**COMMON, **RECBOLES["SASRec"], "data_path": tiny["data_path"], "epochs": 1}
    plain = run("SASRec", "Mini", overrides=overrides)
    masked = run("SASRec", "Mini", overrides={**overrides, "mask_history": True})
    assert masked["mask_history"] is True
    assert masked["split_hash"] == plain["split_hash"]
    assert masked["test_result"] != plain["test_result"]
