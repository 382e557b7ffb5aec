"""Conditions on the items' columns: values are bound, never part of a query."""

from __future__ import annotations

import pandas as pd
import pytest

from recbole_bbqrec.answers.filters import Condition, item_table, items_that, warn_of_missing_rows
from recbole_bbqrec.errors import UserError

ROWS = pd.DataFrame(
    {
        "item_id": ["a", "b", "c", "d", "e"],
        "price": [5.0, 20.0, 9.5, 100.0, None],
        "brand": ["Acme", "ajax", "o'neil; DROP TABLE cells", "", "7"],
        "day": ["2026-01-01", "2026-05-01", "2025-01-01", "2026-11-27", None],
    }
)


@pytest.fixture(scope="module", params=[".csv", ".parquet", ".jsonl", ".item"])
def table(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("items") / f"items{request.param}"
    if request.param == ".parquet":
        ROWS.to_parquet(path)
    elif request.param == ".jsonl":
        ROWS.to_json(path, orient="records", lines=True)
    elif request.param == ".item":  # RecBole's header has types
        ROWS.rename(columns=lambda name: f"{name}:token").to_csv(path, sep="\t", index=False)
    else:
        ROWS.to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("price < 20", "ac"),  # as numbers: "100" < "20" as texts
        ("price <= 20.0", "abc"),
        ("price = 20", "b"),
        ("price != 20", "acd"),
        ("price in 5, 100", "ad"),
        ("brand = Acme", "a"),
        ("brand = 'Acme'", "a"),
        ("brand = 7.0", "e"),
        ("brand contains a", "abc"),
        ("brand = o'neil; DROP TABLE cells", "c"),
        ("brand = ' OR 1=1 --", ""),
        ("day >= 2026-01-02", "bd"),
    ],
)
def test_items_that_meet_a_condition(table, text, expected):
    assert items_that([Condition.parse(text)], table) == set(expected)


@pytest.mark.parametrize("text", ["price < abc", "price != free", "price in 5, none"])
def test_a_column_of_numbers_is_compared_with_numbers(table, text):
    value = text.split()[-1]
    expected = f"column 'price' of .*, which holds numbers, with '{value}'; expected a number"
    with pytest.raises(UserError, match=expected):
        items_that([Condition.parse(text)], table)


def test_what_is_no_number_in_a_column_of_numbers_meets_no_condition(tmp_path):
    (tmp_path / "i.csv").write_text("item_id,price,new\na,nan,true\nb,3,false\nc,,true\n")
    assert items_that([Condition.parse("price > 1")], tmp_path / "i.csv") == {"b"}
    assert items_that([Condition.parse("new = true")], tmp_path / "i.csv") == set("ac")


def test_a_time_at_midnight_is_its_date(tmp_path):
    days = ["2026-01-14", "2026-01-15", "2026-01-15T10:00", "2026-01-16"]
    days = pd.to_datetime(days, format="ISO8601")
    pd.DataFrame({"item_id": list("abcd"), "when": days}).to_parquet(tmp_path / "t.parquet")
    for text, expected in (("<= 2026-01-15", "ab"), ("= 2026-01-15", "b"), ("> 2026-01-15", "cd")):
        condition = Condition.parse(f"when {text}")
        assert items_that([condition], tmp_path / "t.parquet") == set(expected)


def test_all_conditions_are_met(table):
    conditions = [Condition.parse(text) for text in ("price > 5", "price < 100")]
    assert items_that(conditions, table) == set("bc")


@pytest.mark.parametrize("text", ["", "price", "price <", "= 3", "price ~ 3"])
def test_what_is_no_condition_is_refused(text):
    with pytest.raises(UserError, match='expected a column, one of .* such as "price < 20"'):
        Condition.parse(text)


def test_an_unknown_column_is_named(table):
    with pytest.raises(UserError, match="names the column 'prise'.*Did you mean `price`"):
        items_that([Condition.parse("prise < 3")], table)


def test_a_column_s_name_is_no_sql(table):
    with pytest.raises(UserError, match="--where names the column"):
        items_that([Condition.parse('price" OR 1=1 -- < 3')], table)


def test_without_columns_of_items_the_remedy_is_named(tmp_path):
    with pytest.raises(UserError, match=r"D\.item_table\.parquet.*D\.item\).*--items=FILE"):
        item_table(tmp_path, "D")


def test_items_without_a_row_are_warned_of(table, caplog):
    warn_of_missing_rows(table, list("abcde"))
    assert not caplog.messages
    warn_of_missing_rows(table, list("avbwxyz"))
    assert len(caplog.messages) == 1
    assert f"5 items of the run have no row in {table} (v, w, x, ...): they" in caplog.text
