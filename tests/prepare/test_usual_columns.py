"""Usual names of the columns of a table of events."""

from __future__ import annotations

from pathlib import Path

import pytest

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.prepare.tables.columns import find_column


@pytest.mark.parametrize("name", ["order_date", "Order Date", "purchased_at", "event-date"])
def test_a_usual_column_of_times_is_found(name):
    header = ["customer_id", "product_id", name]
    assert find_column(Path("orders.csv"), header, "time", None, required=False) == name


def test_no_column_of_times_is_guessed():
    header = ["customer_id", "product_id", "birth_date"]
    assert find_column(Path("orders.csv"), header, "time", None, required=False) is None


@pytest.mark.parametrize("header, option, hint", [
    (["user_id;item_id;time"], None, r"divided by ';': --separator=';'\.$"),
    (["user_id,item_id"], None, r"--separator=','\.$"),
    (["sku;name"], "--items_item_column", r"--items_separator=';'\.$"),
    (["u1", "i1", "1600000000"], None, "--no_header if this is its first row"),
    (["1", "2", "3"], None, r"Name the column with --item_column\.$"),
    (["whatever"], None, r"Name the column with --item_column\.$"),
])  # fmt: skip
def test_a_header_without_usual_names_says_what_may_be_wrong(header, option, hint):
    with pytest.raises(UserError, match=hint):
        find_column(Path("orders.csv"), header, "item", None, option=option)
