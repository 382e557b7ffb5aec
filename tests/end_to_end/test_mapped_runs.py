"""Whole runs on events mapped from disk."""

from __future__ import annotations

import pytest
import torch

from recbole_bbqrec.quick_start import load_run, run
from recbole_bbqrec.run_files.checkpoint import load_checkpoint
from tests.support.runs import ROOT, TINY, measured

BBQREC = {**TINY, "epochs": 1, "tokenizer_epochs": 2}
ESASREC = {"data_path": str(ROOT / "dataset"), "epochs": 1, "hidden_size": 16, "inner_size": 16,
           "show_progress": False, "state": "WARNING"}  # fmt: skip


@pytest.mark.parametrize(("model", "options"), [("BBQRec", BBQREC), ("ESASRec", ESASREC)])
def test_a_mapped_run_has_the_same_bits(tmp_path, monkeypatch, model, options):
    results, loaded = [], []
    for layout in ("recbole", "mapped"):
        (tmp_path / layout).mkdir()
        monkeypatch.chdir(tmp_path / layout)
        where = {"data_layout": layout, "mapped_folder": str(tmp_path / "kept"), "num_threads": 1}
        results.append(run(model, "Mini", overrides={**options, **where}))
        loaded.append(load_run(results[-1]["files"]["model"]))
    theirs, ours = results
    for name in ("test_result", "best_valid_result", "split_hash", "split", "by_target", "users"):
        assert ours[name] == theirs[name]
    lines = [measured(tmp_path / layout / result["files"]["epochs"])
             for layout, result in zip(("recbole", "mapped"), results)]  # fmt: skip
    assert lines[0] == lines[1]
    weights = [
        load_checkpoint(tmp_path / layout / result["files"]["model"])["state_dict"]
        for layout, result in zip(("recbole", "mapped"), results)
    ]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    users = [str(token) for token in loaded[0].dataset.field2id_token["user_id"][1:6]]
    for given in ({"users": users}, {"users": users, "exclude_history": True}):
        tables = [each.recommend(k=5, **given) for each in loaded]
        assert tables[0].equals(tables[1])
