"""The columns that options name against the headers of the interaction files."""

from __future__ import annotations

import pytest

from recbole_bbqrec.config.checks import logging_services
from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.errors import UserError

HEADER = "user_id:token\titem_id:token\trating:float\tkind:token\ttimestamp:float"


@pytest.mark.parametrize(
    ("header", "options", "says"),
    [
        (HEADER.replace("user_id", "UserId"), {}, "no column `user_id`.*`USER_ID_FIELD`.*UserId"),
        (HEADER.replace("item_id", "iid"), {}, "no column `item_id`.*`ITEM_ID_FIELD`"),
        (HEADER.replace("\t", ","), {}, "`field_separator`"),
        (HEADER, {"load_col": {"inter": ["user_id", "item_id", "ratng"]}}, "Did you mean `rating`"),
        (HEADER, {"load_col": {"inter": ["item_id"]}}, "expected the column `user_id`"),
        (HEADER, {"val_interval": {"rating": ["3", "4"]}}, "expected intervals.*rating:float"),
        (HEADER, {"val_interval": {"kind": "[3,5]"}}, "a list of the values.*kind:token"),
    ],
)
def test_columns_that_a_file_has_not_are_named(tmp_path, header, options, says):
    (tmp_path / "Own").mkdir()
    (tmp_path / "Own" / "Own.inter").write_text(header + "\nu\ti\t3\tbuy\t0\n")
    with pytest.raises(UserError, match=says):
        BBQRecConfig("SASRec", "Own", overrides={"data_path": str(tmp_path), **options})


def test_columns_of_other_names_and_filters_that_fit_are_taken(tmp_path):
    (tmp_path / "Own").mkdir()
    (tmp_path / "Own" / "Own.inter").write_text(HEADER.replace("user_id", "UserId") + "\n")
    options = {
        "data_path": str(tmp_path),
        "USER_ID_FIELD": "UserId",
        "load_col": {"inter": ["UserId", "item_id", "rating", "timestamp"]},
        "val_interval": {"rating": "[3,5]", "kind": ["buy"]},
    }
    assert BBQRecConfig("SASRec", "Own", overrides=options)["USER_ID_FIELD"] == "UserId"
    del options["load_col"]
    with pytest.raises(UserError, match="expected the column `UserId` of `USER_ID_FIELD`"):
        BBQRecConfig("SASRec", "Own", overrides=options)


def test_labels_rank_nothing():
    options = {"eval_args": {"mode": "labeled"}}
    with pytest.raises(UserError, match="labeled.*which ranks nothing.*AUC"):
        BBQRecConfig("DIN", "Mini", overrides=options)
    options.update(metrics=["AUC"], valid_metric="AUC")
    assert BBQRecConfig("DIN", "Mini", overrides=options)["metrics"] == ["AUC"]


@pytest.mark.parametrize("folder", [False, True])
def test_wandb_that_is_absent_is_told_before_the_run(monkeypatch, tmp_path, folder):
    """An earlier run of wandb leaves a folder of its name, which Python takes for a package."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    if folder:
        (tmp_path / "wandb").mkdir()
    else:
        monkeypatch.setattr(logging_services, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="`log_wandb` is True.*pip install wandb"):
        BBQRecConfig("SASRec", "Mini", overrides={"log_wandb": True})
