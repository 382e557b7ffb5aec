"""Forms of tables met in the field: separators, headers, JSON lines, dates, and item columns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recbole_bbqrec.cli.main import main
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.prepare.tables.build import OwnSource, prepare_own
from recbole_bbqrec.prepare.tables.events import EventOptions, read_events
from recbole_bbqrec.prepare.tables.items import ItemOptions
from recbole_bbqrec.prepare.tables.ledger import Ledger

ALL = {"user_core": 1, "item_core": 1}
ROWS = [("u1", "b", 2), ("u1", "a", 1), ("u2", "b", 5)]
SEQUENCES = [("u1", "a"), ("u1", "b"), ("u2", "b")]


def events_of(path: Path, text: str, **options) -> list[tuple[str, str]]:
    path.write_text(text)
    ledger = Ledger()
    events = read_events(path, EventOptions(**ALL, **options), ledger)
    assert not ledger.reasons
    pairs = zip(events.users, events.items)
    return [(events.user_names[user], events.item_names[item]) for user, item in pairs]


@pytest.mark.parametrize("separator", [";", "|", "::", "\t", "'"])
@pytest.mark.parametrize("suffix", ["csv", "dat", "txt"])
def test_separators_of_any_kind(tmp_path, separator, suffix):
    lines = [("user", "item", "time"), *ROWS]
    text = "\n".join(separator.join(map(str, row)) for row in lines) + "\n"
    assert events_of(tmp_path / f"e.{suffix}", text, separator=separator) == SEQUENCES


def test_a_table_without_a_header_has_numbered_columns(tmp_path):
    text = "\n".join(";".join(map(str, row)) for row in ROWS) + "\n"
    named = {"user": "1", "item": "2", "time": "3", "no_header": True, "separator": ";"}
    assert events_of(tmp_path / "e.dat", text, **named) == SEQUENCES
    with pytest.raises(UserError, match=r"its header is 1, 2, 3.*--user_column"):
        events_of(tmp_path / "e.dat", text, no_header=True, separator=";")


@pytest.mark.parametrize("suffix", ["jsonl", "ndjson", "json"])
def test_interactions_as_json_lines(tmp_path, suffix):
    objects = [{"user_id": u, "item_id": i, "timestamp": t, "tags": ["x"]} for u, i, t in ROWS]
    text = "".join(json.dumps(row) + "\n" for row in objects)
    assert events_of(tmp_path / f"e.{suffix}", text) == SEQUENCES
    quoted = text.replace("user_id", "a 'q' \\\"b\\\" c")
    assert events_of(tmp_path / f"e.{suffix}", quoted, user="a 'q' \"b\" c") == SEQUENCES
    path = tmp_path / f"bad.{suffix}"
    path.write_text(text + "no json\n[1, 2]\n")
    ledger = Ledger()
    read_events(path, EventOptions(**ALL), ledger)
    assert ledger.count("rows without a user") == 2
    path.write_text(json.dumps(objects))
    with pytest.raises(UserError, match=r"one JSON list; expected one JSON object a line.*jq"):
        read_events(path, EventOptions(**ALL), Ledger())


@pytest.mark.parametrize(
    ("times", "form"),
    [
        (["2019-10-01 00:00:05 UTC", "2019-10-01 00:00:01 UTC", "2019-10-02 00:00:00 UTC"], None),
        (["2019-10-01 00:00:05GMT", "2019-10-01 00:00:01 GMT", "2019-10-02 00:00:00 GMT"], None),
        (["03/01/2018", "02/27/2018", "01/01/2019"], "%m/%d/%Y"),
        (["01.03.2018 10:00", "27.02.2018 09:00", "01.01.2019 00:00"], "%d.%m.%Y %H:%M"),
    ],
)
def test_forms_of_times(tmp_path, times, form):
    rows = [f"{u},{i},{time}" for (u, i, _), time in zip(ROWS, times)]
    text = "\n".join(["user,item,time", *rows]) + "\n"
    assert events_of(tmp_path / "e.csv", text, time_format=form) == SEQUENCES


def test_times_of_another_form_are_counted(tmp_path):
    (tmp_path / "e.csv").write_text("user,item,time\nu,a,03/01/2018\nu,b,2018-03-02\n")
    ledger = Ledger()
    options = EventOptions(**ALL, time_format="%m/%d/%Y")
    assert len(read_events(tmp_path / "e.csv", options, ledger).users) == 1
    assert ledger.count("rows whose time is not a date as %m/%d/%Y") == 1


@pytest.mark.parametrize(
    ("ids", "names"),
    [
        (["21.0", "7.0", "21.0"], ["21", "7"]),
        (["21.0", "7.5", "21.0"], ["21.0", "7.5"]),  # other numbers are names
        (["21.0", "a", "21.0"], ["21.0", "a"]),
        (["21", "7", "21"], ["21", "7"]),
    ],
)
def test_whole_numbers_that_pandas_wrote_as_floats(tmp_path, ids, names):
    rows = [f"u,{name},{time}" for time, name in enumerate(ids)]
    path = tmp_path / "e.csv"
    path.write_text("\n".join(["user,item,time", *rows]) + "\n")
    assert read_events(path, EventOptions(**ALL), Ledger()).item_names == names


def test_the_item_column_that_the_items_have_is_taken(tmp_path):
    """Amazon 2023: reviews name an item and its parent, items are parents."""
    reviews = [("u1", "x1", "p1", 1), ("u1", "x2", "p2", 2), ("u2", "x3", "p1", 3)]
    text = "\n".join(
        ["user_id,asin,parent_asin,timestamp"] + [",".join(map(str, r)) for r in reviews]
    )
    (tmp_path / "reviews.csv").write_text(text + "\n")
    meta = "".join(
        json.dumps({"parent_asin": p, "title": f"thing {p}"}) + "\n" for p in ("p1", "p2")
    )
    (tmp_path / "meta.jsonl").write_text(meta)
    source = OwnSource(tmp_path / "reviews.csv", tmp_path / "meta.jsonl")
    report = prepare_own("Own", source, tmp_path, EventOptions(**ALL))
    assert report.columns["item"] == "parent_asin" and report.items == 2
    alone = prepare_own("Alone", OwnSource(tmp_path / "reviews.csv"), tmp_path, EventOptions(**ALL))
    assert alone.columns["item"] == "asin"
    chosen = EventOptions(**ALL, item="asin")
    with pytest.raises(UserError, match="none of its rows is of an item"):
        prepare_own("Chosen", source, tmp_path, chosen, ItemOptions())


@pytest.mark.parametrize("given", [None, "parent_asin"])
def test_items_with_both_columns_are_read_by_that_of_the_events(tmp_path, given):
    (tmp_path / "e.csv").write_text("user_id,parent_asin\nu1,p1\nu1,p2\n")
    (tmp_path / "i.csv").write_text("asin,parent_asin,title\nx1,p1,red shoe\nx2,p2,blue hat\n")
    events = EventOptions(**ALL, item=given)
    prepare_own("Own", OwnSource(tmp_path / "e.csv", tmp_path / "i.csv"), tmp_path, events)
    assert "p2\tblue hat" in (tmp_path / "Own" / "Own.titles.tsv").read_text()


@pytest.mark.parametrize("options, message", [
    ({}, "written, such as --time_format=%m/%d/%Y"),
    ({"time_format": "%Q"}, "--time_format is '%Q', which is no format of times"),
])  # fmt: skip
def test_times_of_no_known_form_name_the_option(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        events_of(tmp_path / "e.csv", "user_id,item_id,date\nu1,a,02/27/2018\n", **options)


def test_a_tab_may_be_typed(tmp_path):
    text = "user_id\titem_id\nu1\ta\nu1\tb\n"
    assert events_of(tmp_path / "e.txt", text, separator=r"\t") == [("u1", "a"), ("u1", "b")]


def test_the_arguments_of_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("e.dat").write_text("u1;21.0;03/01/2018\nu1;7.0;02/27/2018\n")
    Path("i.txt").write_text("21|red shoe\n7|blue hat\n")
    code = main([
        "prepare", "Own", "--interactions=e.dat", "--separator=;", "--no_header",
        "--user_column=1", "--item_column=2", "--time_column=3", "--time_format=%m/%d/%Y",
        "--user_core=1", "--item_core=1", "--items=i.txt", "--items_separator=|",
        "--items_no_header", "--items_item_column=1", "--title_column=2", "--text_columns=2",
    ])  # fmt: skip
    assert code == 0, capsys.readouterr()
    events = Path("dataset/Own/Own.inter").read_text().splitlines()[1:]
    assert [line.split("\t")[1] for line in events] == ["7", "21"]
    assert "7\tblue hat" in Path("dataset/Own/Own.titles.tsv").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("order.csv", "order.csv not found; expected a table. Did you mean `orders.csv`?"),
        ("header.csv", "header.csv has no rows below its header (customer, product, order_date)"),
        ("empty.csv", "empty.csv is empty"),
        ("orders.csv --user_column=custmer", "Did you mean `customer`?"),
        ("orders.csv --items=goods.csv", "goods.csv has no rows below its header (product, title)"),
        ("orders.csv --items=goods.csv --text_columns=titel", "Did you mean `title`?"),
    ],
)
def test_first_mistakes(rundir, capsys, words, message):
    Path("orders.csv").write_text("customer,product,order_date\nu,a,2024-01-02\nv,a,2024-01-03\n")
    Path("header.csv").write_text("customer,product,order_date\n")
    Path("goods.csv").write_text("product,title\n")
    Path("empty.csv").write_text("")
    cores = ["--user_core=1", "--item_core=1"]
    assert main(["prepare", "Shop", *f"--interactions={words}".split(), *cores]) == 2
    assert message in capsys.readouterr().err
    assert not Path("dataset/Shop").exists()
