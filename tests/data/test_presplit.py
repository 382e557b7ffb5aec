"""Files that are split already (`benchmark_filename`): in any order, with or without validation."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.data.histories import Histories
from recbole_bbqrec.data.loaders import create_dataset, split
from recbole_bbqrec.data.protocol.split_hash import split_hash
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.model.registry import get_dataset_class
from recbole_bbqrec.quick_start import run

LONGEST = 4  # so that most rows of a user have a full history
OPTIONS = {
    "alias_of_item_id": ["item_id_list"], "MAX_ITEM_LIST_LENGTH": LONGEST,
    "load_col": {"inter": ["user_id", "item_id", "item_id_list"]}, "topk": [3],
    "valid_metric": "NDCG@3", "benchmark_filename": ["train", "valid", "test"],
}  # fmt: skip


def write(folder, order, repeats=False):
    """Rows of 12 users, in the order that the function gives them."""
    rng = np.random.default_rng(3)
    parts = {"train": [], "valid": [], "test": []}
    for user in range(12):
        items = rng.choice(9, 11, replace=repeats) if repeats else rng.permutation(9)
        for end in range(1, len(items)):
            part = {len(items) - 1: "test", len(items) - 2: "valid"}.get(end, "train")
            history = " ".join(f"i{i}" for i in items[max(0, end - LONGEST) : end])
            parts[part].append(f"u{user}\t{history}\ti{items[end]}")
    folder.mkdir(parents=True)
    header = "user_id:token\titem_id_list:token_seq\titem_id:token"
    for part, rows in parts.items():
        (folder / f"Pre.{part}.inter").write_text("\n".join([header, *order(rows)]) + "\n")


def configured(root, **options):
    return BBQRecConfig("SASRec", "Pre", overrides={"data_path": str(root), **OPTIONS, **options})


def parts_of(root, **options):
    config = configured(root, **options)
    return split(config, create_dataset(config, get_dataset_class("SASRec")))


def shuffled(rows):
    return [rows[n] for n in np.random.default_rng(1).permutation(len(rows))]


def tokens(train):
    """The histories by user, as tokens."""
    histories, items = Histories.from_training_data(train), train.field2id_token["item_id"]
    bounds = histories.offsets.tolist()
    users = train.field2id_token["user_id"][histories.users.numpy()]
    return {
        user: items[histories.items[a:b].numpy()].tolist()
        for user, a, b in zip(users, bounds[:-1], bounds[1:])
    }


@pytest.mark.parametrize("repeats", [False, True])
def test_the_order_of_the_rows_does_not_matter(tmp_path, repeats):
    write(tmp_path / "a" / "Pre", list, repeats)
    write(tmp_path / "b" / "Pre", shuffled, repeats)
    sorted_parts, other = parts_of(tmp_path / "a"), parts_of(tmp_path / "b")
    assert tokens(sorted_parts[0]) == tokens(other[0])
    assert split_hash(*sorted_parts) == split_hash(*other)


@pytest.mark.slow
def test_training_and_test_alone(rundir, caplog):
    write(rundir / "dataset" / "Pre", shuffled)
    options = {**OPTIONS, "benchmark_filename": ["train", "test"], "epochs": 2, "n_layers": 1,
               "hidden_size": 8, "inner_size": 8, "n_heads": 1}  # fmt: skip
    with caplog.at_level(logging.WARNING):
        result = run("SASRec", "Pre", overrides=options)
    assert "without validation" in caplog.text
    assert result["best_valid_score"] is None and result["best_valid_result"] == {}
    assert result["users"]["tested"] == 12 and set(result["test_result"]) >= {"ndcg@3"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"alias_of_item_id": None}, "`alias_of_item_id` is None.*item_id_list"),
        ({"load_col": {"inter": ["user_id", "item_id"]}}, "`load_col`.*`item_id_list`"),
        ({"benchmark_filename": ["train"]}, "`benchmark_filename`.*three files"),
        ({"benchmark_filename": ["a", "b", "c", "d"]}, "`benchmark_filename`.*three files"),
    ],
)
def test_wrong_options_are_named(tmp_path, options, words):
    write(tmp_path / "Pre", list)
    with pytest.raises(UserError, match=words):
        configured(tmp_path, **options)


def test_single_events_are_told_where_to_go(tmp_path):
    (tmp_path / "Pre").mkdir()
    for part in ("train", "valid", "test"):
        lines = ["user_id:token\titem_id:token\ttimestamp:float", "u1\ti1\t5"]
        (tmp_path / "Pre" / f"Pre.{part}.inter").write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match="Pre.train.inter has no column `item_id_list`.*Pre.inter"):
        configured(tmp_path, load_col={"inter": ["user_id", "item_id", "timestamp"]})


def test_rows_that_are_no_sequence_are_refused(tmp_path):
    write(tmp_path / "Pre", lambda rows: rows[::2])
    with pytest.raises(UserError, match="not all prefixes"):
        split_hash(*parts_of(tmp_path))
