"""Messages of a command that writes lists: users and items that a run does not know."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.serving import lists
from recbole_bbqrec.serving.list_report import ListReport
from recbole_bbqrec.serving.lists import ListOptions, allowed_items, write_lists


class Known:
    """A run of two items and a user; the first item is the best for everybody."""

    n_items, item_ids, user_ids, titles = 3, {"a": 1, "b": 2}, {"u": 1}, {}
    item_tokens = np.array(["[PAD]", "a", "b"], dtype=object)

    def every_item(self):
        return torch.arange(3) > 0

    def rows_of_users(self, names):
        return names

    rows_of_histories = rows_of_users

    def best(self, rows, k, allowed, excluded):
        return np.ones((len(rows), k), dtype=np.int64), np.zeros((len(rows), k), dtype=np.float32)


@pytest.fixture
def written(tmp_path):
    (tmp_path / "model").touch()

    def write(**options):
        return write_lists(
            Known(), tmp_path / "model", tmp_path / "out.csv", ListOptions(topk=1, **options)
        )

    return write


@pytest.mark.parametrize("option", ["allow", "deny"])
def test_a_table_in_place_of_a_list_of_items_is_named(tmp_path, option):
    path = tmp_path / "products.csv"
    path.write_text("product_id,title\na,A thing\nb,Another\n")
    options = ListOptions(**{option: path})
    message = f"--{option} is .*products.csv: none of its 3 items.*first is 'product_id,title', exp"
    with pytest.raises(UserError, match=message):
        allowed_items(Known(), options, ListReport())
    path.write_text("product_id\na\n")
    assert allowed_items(Known(), options, ListReport()).sum() == 1


def test_a_file_without_a_known_user_is_named(tmp_path, written):
    path = tmp_path / "users.txt"
    path.write_text("u,1\nv,2\n")
    with pytest.raises(UserError, match="--users is .*none of its 2 users.*the first is 'u,1'"):
        written(users=path)
    assert not list(tmp_path.glob("out.csv*"))
    path.write_text("v\nu\n")
    assert written(users=path).users == 1


def test_users_without_a_known_item_are_named(tmp_path, written, monkeypatch):
    monkeypatch.setattr(lists, "PART", 2)
    users = {"p": ["x"], "u": ["a"], "q": [], "r": ["y"], "s": []}
    rows = [json.dumps({"user": user, "history": items}) + "\n" for user, items in users.items()]
    (tmp_path / "h.jsonl").write_text("".join(rows[:3]))
    said = written(histories=tmp_path / "h.jsonl").text()
    assert "2 users have no known item or event: left out (p, q)" in said
    (tmp_path / "out.csv").unlink()
    (tmp_path / "h.jsonl").write_text("".join(rows))
    said = written(histories=tmp_path / "h.jsonl").text()
    assert "4 users have no known item or event: left out (p, q, r, ...)" in said
