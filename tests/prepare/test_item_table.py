"""The columns of the user's table of items, kept with the data set for conditions on them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from recbole_bbqrec.answers.filters import Condition, item_table, items_that
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.prepare.item_table import extend_item_table, write_item_table
from recbole_bbqrec.prepare.tables.build import OwnSource, prepare_own
from recbole_bbqrec.prepare.tables.events import EventOptions
from recbole_bbqrec.prepare.tables.items import ItemOptions

ROWS = pd.DataFrame(
    {
        "": [0, 1, 2, 3, 4],  # the index that pandas writes
        "sku": ["a", "b", "c", "b", "x"],  # b twice, x never bought
        "title": ["Lamp", 'Tent, "large"', "Kettle\nof tin", "Other", "Unused"],
        "Price": [3.5, 20.0, None, 99.0, 1.0],
        "item_id": [9, 9, 9, 9, 9],  # of another system
        'odd "name"': ["p", "q", "r", "s", "t"],
    }
)


def written(folder, suffix):
    path = folder / f"goods{suffix}"
    if suffix == ".parquet":
        vectors = [np.ones(3)] * len(ROWS)
        ROWS.assign(photo=[b"\xff"] * len(ROWS), vector=vectors).to_parquet(path)
    elif suffix == ".jsonl":
        ROWS.to_json(path, orient="records", lines=True)
    else:
        ROWS.to_csv(path, index=False, sep="\t" if suffix == ".tsv" else ",")
    return path


def matching(table, *conditions):
    return items_that([Condition.parse(text) for text in conditions], table)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".jsonl"])
def test_each_item_s_first_row_is_kept_with_all_columns(tmp_path, suffix):
    goods = written(tmp_path, suffix)
    table = write_item_table(goods, ItemOptions("sku"), "abc", tmp_path / "Shop")
    kept = pd.read_parquet(table)
    assert kept["item_id"].tolist() == kept["sku"].tolist() == ["a", "b", "c"]
    assert kept["title"].tolist() == ROWS["title"].tolist()[:3]
    unnamed = {".jsonl": set(), ".parquet": {"C0"}}.get(suffix, {"column1"})
    assert set(kept) == {"item_id", "sku", "title", "Price", 'odd "name"'} | unnamed
    assert matching(table, "Price < 20.5") == {"a", "b"}  # as numbers
    assert matching(table, "title contains tent", 'odd "name" = q') == {"b"}


def test_a_prepared_data_set_has_the_table_until_it_is_made_without(tmp_path):
    (tmp_path / "events.csv").write_text("user,sku,time\nu,a,1\nu,b,2\nv,a,1\nv,c,2\n")
    source = OwnSource(tmp_path / "events.csv", written(tmp_path, ".csv"))
    core = EventOptions(user_core=1, item_core=1)
    prepare_own("Shop", source, tmp_path, core)
    assert matching(item_table(tmp_path / "Shop", "Shop"), "Price < 50") == {"a", "b"}
    prepare_own("Shop", OwnSource(source.interactions), tmp_path, core, force=True)
    with pytest.raises(UserError, match=r"the run's data have none \(Shop.item_table.parquet"):
        item_table(tmp_path / "Shop", "Shop")  # the former one was of other items


def test_new_items_follow_with_their_columns(tmp_path):
    goods = written(tmp_path, ".csv")
    earlier = write_item_table(goods, ItemOptions("sku"), ["a", "b"], tmp_path / "earlier[1]")
    (tmp_path / "new.csv").write_text("code;price;colour\nn;7;red\nb;1;blue\n")
    extend_item_table(
        earlier, tmp_path / "new.csv", ItemOptions("code", separator=";"), "n", tmp_path / "Wider"
    )
    wider = tmp_path / "Wider.item_table.parquet"
    kept = pd.read_parquet(wider)
    assert kept["item_id"].tolist() == ["a", "b", "n"] and len(list(tmp_path.iterdir())) == 4
    assert kept["Price"].tolist() == ["3.5", "20.0", "7"]  # a name in another case is the same
    assert kept["colour"].tolist() == [None, None, "red"]
    assert matching(wider, "Price < 20") == {"a", "n"}
