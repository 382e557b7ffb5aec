"""Interactions of one's own: against a reference in plain Python, whatever the rows hold."""

from __future__ import annotations

import csv
import errno
from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from recbole.data import create_dataset

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.prepare.interactions import are_plain_tokens, is_token
from recbole_bbqrec.prepare.tables.build import write_events
from recbole_bbqrec.prepare.tables.core import k_core
from recbole_bbqrec.prepare.tables.events import EventOptions, Events, read_events
from recbole_bbqrec.prepare.tables.ledger import Ledger
from recbole_bbqrec.prepare.tables.query import write_rows
from tests.support.data import make_config, write_inter

HEADER = ["user_id", "item_id", "note", "timestamp", "rating"]


def write_csv(path, rows, header=HEADER, delimiter=","):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *rows])
    return path


def sequences(events):
    """Raw tokens of each user's items, in order."""
    found = {}
    for user, item in zip(events.users, events.items):
        found.setdefault(events.user_names[user], []).append(events.item_names[item])
    return found


def number(text):
    try:
        value = float(text)
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def brute_core(events, user_core, item_core):
    """One event at a time: drop any that breaks a core, start again."""
    events = list(events)
    while True:
        users, items = Counter(e[0] for e in events), Counter(e[1] for e in events)
        for event in events:
            if users[event[0]] < user_core or items[event[1]] < item_core:
                events.remove(event)
                break
        else:
            return events


def reference(rows, options):
    """Sequences by user in the order of first occurrence, and how many rows each check took."""
    lost, events = Counter(), []
    for place, row in enumerate(rows):
        if not row:
            continue
        if len(row) != len(HEADER):
            lost["fields"] += 1
            continue
        user, item, _, time, rating = row
        user, item = user.strip(), item.strip()
        if not user:
            lost["without a user"] += 1
        elif not item:
            lost["without an item"] += 1
        elif number(time) is None:
            lost["whose time"] += 1
        elif number(rating) is None:
            lost["whose rating"] += 1
        elif number(rating) < options.min_rating:
            lost["rated below"] += 1
        elif user in ("NA", "a  b"):
            lost["whose user"] += 1
        elif item in ("null", 'q"', "[PAD]", "i\n3"):
            lost["whose item"] += 1
        else:
            events.append((user, item, number(time), place))
    once = {}
    for event in events:
        once.setdefault(event[:3], event)
    lost["twice"] = len(events) - len(once)
    events = sorted(once.values(), key=lambda e: e[2:])
    if options.repeats != "keep":
        pairs = {}
        for event in events if options.repeats == "last" else events[::-1]:
            pairs[event[:2]] = event
        lost["repeated"] = len(events) - len(pairs)
        events = sorted(pairs.values(), key=lambda e: e[2:])
    kept = brute_core(events, options.user_core, options.item_core)
    lost["below the core"] = len(events) - len(kept)
    users = dict.fromkeys(e[0] for e in sorted(kept, key=lambda e: e[3]))
    return {user: [e[1] for e in kept if e[0] == user] for user in users}, +lost


FIELDS = [
    st.sampled_from(["u1", "u2", "u3", " u1 ", "007", "7", "", " ", "NA", "a b", "a  b"]),
    st.sampled_from(["i1", "i2", "i3", "i1 ", "", "null", 'q"', "[PAD]", "i\n3", "ü", "None1"]),
    st.sampled_from(["", "x,y", 'a "b"', "l\nm"]),
    st.sampled_from(["1", "2", "2.0", "2.5", "-3", "x", "", "inf", "nan", "1e1", "True"]),
    st.sampled_from(["5", "4", "1", "?", ""]),
]
ROWS = st.lists(
    st.one_of(
        st.tuples(*FIELDS),
        st.lists(st.sampled_from(["u1", "i1", "2"]), min_size=1, max_size=8),
        st.just(()),
    ),
    max_size=40,
)  # fmt: skip


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(
    rows=ROWS,
    cores=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    repeats=st.sampled_from(["keep", "first", "last"]),
)
def test_any_rows(rows, cores, repeats, tmp_path_factory):
    path = write_csv(tmp_path_factory.mktemp("any") / "e.csv", rows)
    options = EventOptions(min_rating=4, repeats=repeats, user_core=cores[0], item_core=cores[1])
    expected, lost = reference(rows, options)
    ledger = Ledger()
    if not expected:
        with pytest.raises(UserError, match="usable|nothing is left|no rows below"):
            read_events(path, options, ledger)
        return
    events = read_events(path, options, ledger)
    assert sequences(events) == expected
    assert list(sequences(events)) == events.user_names  # numbered by first occurrence
    assert {key: sum(r.count for name, r in ledger.items() if key in name) for key in lost} == lost
    # Every row read is either kept or counted.
    assert events.read == len(events.users) + sum(r.count for _, r in ledger.items())


def test_core_against_brute_force():
    rng = np.random.default_rng(1)
    for user_core, item_core in product((1, 2, 3, 4), repeat=2):
        users, items = rng.integers(0, 8, 40), rng.integers(0, 9, 40)
        kept = k_core(users, items, user_core, item_core)
        events = list(zip(users.tolist(), items.tolist(), range(40)))
        assert kept.tolist() == [e[2] for e in brute_core(events, user_core, item_core)]


def test_core_needs_more_than_one_round():
    users = np.array([0, 0, 1, 1, 2, 2, 3])
    items = np.array([0, 1, 1, 2, 2, 3, 3])
    assert k_core(users, items, 2, 2).tolist() == []  # each round opens the next
    assert k_core(users, items, 1, 2).tolist() == [1, 2, 3, 4, 5, 6]


@given(st.lists(st.text(st.sampled_from("aA0#'\\~é \"\t")) | st.sampled_from(["NA", "null"])))
@example(["[PAD]"])
@example(["a", ""])
def test_plain_tokens_are_tokens(texts):
    """The fast test of all names at once lets none through that the slow one would not."""
    if are_plain_tokens(texts):
        assert all(map(is_token, texts)) and [text.strip() for text in texts] == texts
    ascii_text = all(text.isascii() and " " not in text for text in texts)
    if texts and ascii_text and all(map(is_token, texts)):
        assert are_plain_tokens(texts)


@pytest.mark.parametrize("factor", [None, 1, 0.1])
def test_events_are_written_as_they_are(tmp_path, factor):
    """Rows keep their order, nothing is quoted, and only fractions of seconds have decimals."""
    users, items = ["#a", "b'c", "d e", "ü,x"], ["\\N", "1", "-"]
    rng = np.random.default_rng(0)
    count = 130_000  # in several parts for several threads
    events = Events(
        np.sort(rng.integers(0, 4, count)).astype(np.int32),
        rng.integers(0, 3, count).astype(np.int32), users, items, count, {},
        None if factor is None else rng.integers(-9, 2_000_000_000, count) * float(factor),
    )  # fmt: skip
    write_events(tmp_path / "x.inter", events)
    whole = "" if factor is None else "\tunix_time:float"
    lines = [f"user_id:token\titem_id:token\ttimestamp:float{whole}"]
    for row, place in enumerate(events.positions().tolist()):
        line = f"{users[events.users[row]]}\t{items[events.items[row]]}\t{place}"
        if factor is not None:
            line += f"\t{events.times[row]:.{0 if factor == 1 else 6}f}"
        lines.append(line)
    assert (tmp_path / "x.inter").read_bytes().decode() == "\n".join(lines) + "\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a device of Linux")
def test_a_full_disk_is_the_systems_error():
    with pytest.raises(OSError, match="No space left") as error:
        write_rows(Path("/dev/full"), pd.DataFrame({"a": range(100_000)}))
    assert error.value.errno == errno.ENOSPC


def read(path, **options):
    ledger = Ledger()
    return read_events(path, EventOptions(**{"user_core": 1, "item_core": 1, **options}), ledger)


def test_dates_order_as_instants(tmp_path):
    rows = [
        ["u", "c", "", "2014-01-02T00:30:00+01:00", "5"],  # 23:30 of the day before, UTC
        ["u", "b", "", "2014-01-01 23:00:00", "5"],
        ["u", "d", "", "2014-01-02", "5"],
        ["u", "a", "", "2013-12-31T23:59:59.5Z", "5"],
    ]
    assert sequences(read(write_csv(tmp_path / "e.csv", rows))) == {"u": ["a", "b", "c", "d"]}


def test_forms_of_dates(tmp_path):
    dates = ["2014-01", " 2014-01-02 ", "20140103T1030", "2014-01-04T10", "2014-01-06 00:30 +0100"]
    rows = [["u", f"i{n}", "", date, "5"] for n, date in enumerate(dates)]
    rows += [["u", "other", "", date, "5"] for date in ("epoch", "infinity", "2014-02-30", "7")]
    path = write_csv(tmp_path / "e.csv", rows[::-1])
    ledger = Ledger()
    events = read_events(path, EventOptions(user_core=1, item_core=1), ledger)
    assert sequences(events) == {"u": ["i0", "i1", "i2", "i3", "i4"]}
    assert ledger.count("rows whose time is not a number or ISO 8601 date") == 4


def test_nanoseconds_are_not_rounded(tmp_path):
    base = 1_600_000_000_000_000_000
    rows = [["u", f"i{n}", "", str(base - n), "5"] for n in range(4)]
    rows.append(["u", "other", "", "?", "5"])
    assert sequences(read(write_csv(tmp_path / "e.csv", rows))) == {"u": ["i3", "i2", "i1", "i0"]}


def test_order_column_and_file_order(tmp_path):
    rows = [["u", "a", "3", "1", "5"], ["u", "b", "1", "2", "5"], ["u", "c", "2", "3", "5"]]
    path = write_csv(tmp_path / "e.csv", rows)
    assert sequences(read(path)) == {"u": ["a", "b", "c"]}
    assert sequences(read(path, order="note")) == {"u": ["b", "c", "a"]}
    path = write_csv(tmp_path / "f.csv", [row[:2] for row in rows[::-1]], HEADER[:2])
    assert sequences(read(path)) == {"u": ["c", "b", "a"]}


def test_usual_column_names_and_atomic_files(tmp_path):
    rows = [["x", "u", "i"], ["x", "u", "j"]]
    path = write_csv(tmp_path / "e.csv", rows, ["extra", "Reviewer-ID", "parent asin"])
    assert sequences(read(path)) == {"u": ["i", "j"]}
    header = ["user_id:token", "item_id:token", "timestamp:float"]
    path = write_csv(tmp_path / "e.inter", [["u", "i", 2], ["u", "j", 1]], header, "\t")
    assert sequences(read(path)) == {"u": ["j", "i"]}


ROW = ["u", "i", "", "1", "5"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"repeats": "some"}, "--repeats is 'some'; expected one of keep, first, last"),
        ({"user_core": 0}, "--user_core is 0"),
        ({"time": "timestamp", "order": "note"}, "both given"),
        ({"rating": "rating"}, "without --min_rating"),
        ({"user": "who"}, "no column 'who' .--user_column.; its header is user_id, item_id"),
        ({"time": "when"}, "no column 'when' .--time_column."),
        ({"time": "user_id"}, "one column has two roles"),
        ({"user_core": 2}, "nothing is left of 1 events"),
        ({"min_rating": 6}, "none of its 1 rows is usable:\n  1  rows rated below 6"),
        ({"order": "note"}, "1  rows whose order is not a number .first: line 2."),
    ],
)
def test_bad_options(tmp_path, options, message):
    path = write_csv(tmp_path / "e.csv", [ROW])
    with pytest.raises(UserError, match=message):
        read(path, **options)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("e.csv", b"user_id,item_id\nu,\xff\n", "cannot be read to its end .*utf-8"),
        ("e.csv", b'user_id,item_id\n"u,i\nv,j\n', "cannot be read to its end .line 2: .*quote"),
        ("e.csv", b'user_id,item_id\n"u"x,i\nv,j\n', "cannot be read to its end"),
        ("e.csv", b"", "e.csv is empty"),
        ("e.csv", b"a,b\n1,2\n", "no column that looks like the user's .user_id, user,"),
        ("e.csv", b"user_id,item_id,user_id\n1,2,3\n", "two columns 'user_id'"),
        ("e.csv.gz", b"\x1f\x8b\x08\x00truncated", "cannot be read to its end"),
        ("e.parquet", b"PAR1 no parquet", "cannot be read to its end"),
        ("e.xlsx", b"PK", "of no known format; expected one of .csv"),
    ],
)
def test_bad_files(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read(tmp_path / name)


def test_quotes_in_every_token(tmp_path):
    """The columns are the right ones; what helps is other tokens."""
    path = write_csv(tmp_path / "e.csv", [["u'1\t", 'Item"1', "", "1", "5"], ["", *ROW[1:]]])
    with pytest.raises(UserError, match="Replace these .a quote by '_', say.") as caught:
        read(path)
    assert "1  rows whose item cannot be a token (quotes or control" in str(caught.value)
    assert "first: 'Item\"1'" in str(caught.value) and "column options" not in str(caught.value)
    with pytest.raises(UserError, match="Check the column options; columns in use: user 'user_id'"):
        read(write_csv(tmp_path / "f.csv", [["", *ROW[1:]]]))


def test_blanks_within_a_token_are_kept_as_recbole_keeps_them(tmp_path):
    tokens = ["Item 1", "a b c", "i 2"]
    rows = [[f"user {n}", token, "", str(n), "5"] for n in range(5) for token in tokens]
    assert read(write_csv(tmp_path / "e.csv", rows)).item_names == tokens
    users = {f"user {n}": tokens for n in range(5)}
    write_inter(tmp_path, "S", users)
    dataset = create_dataset(make_config(tmp_path, "S"))
    assert {*dataset.field2id_token["item_id"][1:]} == {*tokens}
    assert {*dataset.field2id_token["user_id"][1:]} == {*users}


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match="e.csv not found"):
        read(tmp_path / "e.csv")


def test_strict_names_all_faults(tmp_path):
    rows = [ROW, ["", *ROW[1:]], ["", *ROW[1:]], ["u", "", *ROW[2:]], ROW[:3]]
    path = write_csv(tmp_path / "e.csv", rows)
    assert len(read(path).users) == 1
    with pytest.raises(UserError, match="refuses") as caught:
        read(path, strict=True)
    for part in ("1 rows with more or fewer fields", "2 rows without a user (first: line 3)",
                 "1 rows without an item (first: line 5)"):  # fmt: skip
        assert part in str(caught.value)
    path = write_csv(tmp_path / "f.csv", [ROW, ROW])
    with pytest.raises(UserError, match="1 events recorded twice"):
        read(path, strict=True)
    path = write_csv(tmp_path / "g.csv", [ROW, [*ROW[:4], "1"]])
    assert len(read(path, strict=True, min_rating=3).users) == 1  # asked for, no fault
