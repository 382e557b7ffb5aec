"""Usual names of the columns of a table of events."""

from __future__ import annotations

from pathlib import Path

import pytest

from recbole_bbqrec.prepare.tables.columns import find_column


@pytest.mark.parametrize("name", ["order_date", "Order Date", "purchased_at", "event-date"])
def test_a_usual_column_of_times_is_found(name):
    header = ["customer_id", "product_id", name]
    assert find_column(Path("orders.csv"), header, "time", None, required=False) == name


def test_no_column_of_times_is_guessed():
    header = ["customer_id", "product_id", "birth_date"]
    assert find_column(Path("orders.csv"), header, "time", None, required=False) is None
