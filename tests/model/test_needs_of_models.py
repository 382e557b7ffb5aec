"""Needs of a model that its data do not meet are told before it trains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import recbole.data

from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.model.registry import get_model
from recbole_bbqrec.quick_start import build_model, prepare
from tests.support.contract import EVERY_EVENT, write_cut
from tests.support.runs import ROOT


def options(path=ROOT / "dataset", **given):
    return {"data_path": str(path), "state": "ERROR", **given}


@pytest.mark.parametrize("model", ["VQRec", "RPG"])
def test_more_digits_than_columns_are_refused(model, tmp_path):
    data = write_cut(tmp_path)
    path = Path(data) / "Mini" / "Mini.text.npy"
    np.save(path, np.load(path)[:, :8])
    path.with_name("Mini.features.yaml").unlink(missing_ok=True)
    config = BBQRecConfig(model, "Mini", overrides=options(data, **EVERY_EVENT))
    with pytest.raises(UserError, match="`code_digits` is 32; expected at most 8"):
        build_model(config, prepare(config).train_data)


def test_a_small_catalogue_is_too_small_for_a_large_partition():
    config = BBQRecConfig("SASRecCPR", "Mini", overrides=options(reranker_CAN_NUM=500))
    with pytest.raises(UserError, match="`reranker_CAN_NUM` is 500; Mini has 405 items"):
        prepare(config)


@pytest.mark.parametrize("model", ["BBQRec", "VQRec", "MISSRec", "MMSASRec", "ItemNeighbours"])
def test_recboles_create_dataset_has_no_features(model, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    config = BBQRecConfig(model, "Mini", overrides=options())
    dataset = recbole.data.create_dataset(config)
    with pytest.raises(UserError, match=r"SequentialDataset.*quick_start\.prepare"):
        get_model(model)(config, dataset)
