"""Users and histories in files of every kind."""

from __future__ import annotations

import gzip

import pandas as pd
import pytest

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.serving.inputs import Asked, histories_in, in_parts, users_in

EVENTS = pd.DataFrame(
    {
        "user": ["b", "a", "b", "a", "b"],
        "item": ["x", "y", "z", "x", "y"],
        "time": [3, 1, 1, 2, 2],
    }
)


def write(frame: pd.DataFrame, path) -> None:
    frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_csv(path, index=False)


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".parquet"])
def test_users(tmp_path, suffix):
    path = tmp_path / f"users{suffix}"
    if suffix == ".txt":
        path.write_text("b\n\n a \r\nb\n")
    else:
        write(pd.DataFrame({"user_id": ["b", "a", "b"], "x": 1}), path)
    assert list(users_in(path)) == [Asked("b", None), Asked("a", None), Asked("b", None)]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_histories_of_events(tmp_path, suffix):
    path = tmp_path / f"events{suffix}"
    write(EVENTS, path)
    assert list(histories_in(path)) == [Asked("b", list("zyx")), Asked("a", list("yx"))]
    write(EVENTS.drop(columns="time"), path)
    assert list(histories_in(path)) == [Asked("b", list("xzy")), Asked("a", list("yx"))]
    days = [f"2026-01-0{day}" for day in EVENTS["time"]]
    write(EVENTS.assign(time=days), path)
    assert next(histories_in(path)) == Asked("b", list("zyx"))


def test_lines_may_be_compressed_and_must_be_text(tmp_path):
    for name, read, text, first in (
        ("u.txt.gz", users_in, "b\n", Asked("b", None)),
        ("h.jsonl.gz", histories_in, '{"user": "b", "history": ["x"]}\n', Asked("b", ["x"])),
    ):
        path = tmp_path / name
        path.write_bytes(gzip.compress(text.encode()))
        assert list(read(path)) == [first]
        plain = path.with_suffix("")
        plain.write_bytes(text.encode() + b"\xff\n")
        with pytest.raises(UserError, match="cannot be read.*expected lines of text in UTF-8"):
            list(read(plain))


def test_histories_as_json_lines(tmp_path):
    path = tmp_path / "histories.jsonl"
    path.write_text('{"user": 7, "history": ["x", 3]}\n\n{"user": "b", "history": []}\n')
    assert list(histories_in(path)) == [Asked("7", ["x", "3"]), Asked("b", [])]


@pytest.mark.parametrize(
    "line", ["[1]", "{", '{"user": 1}', '{"user": 1, "history": "x"}', '{"user":1,"history":[[]]}']
)
def test_a_line_that_is_no_history_is_named(tmp_path, line):
    path = tmp_path / "h.jsonl"
    path.write_text('{"user": "a", "history": ["x"]}\n' + line)
    with pytest.raises(UserError, match=r"h\.jsonl, line 2 .*expected an object such as"):
        list(histories_in(path))


def test_parts_have_at_most_the_size_asked():
    asked = (Asked(str(number), None) for number in range(7))
    assert [len(part) for part in in_parts(asked, 3)] == [3, 3, 1]


@pytest.mark.parametrize("line", [
    r'{"user": "a\ud800", "history": ["x"]}', r'{"user": "a", "history": ["x", "\udc00"]}',
])  # fmt: skip
def test_half_a_surrogate_pair_is_no_name(tmp_path, line):
    (tmp_path / "h.jsonl").write_text('{"user": "b", "history": ["y"]}\n' + line + "\n")
    with pytest.raises(UserError, match="line 2 is .*Correct the line"):
        list(histories_in(tmp_path / "h.jsonl"))


@pytest.mark.parametrize("times", [
    ["2026-03-01T10:00:00+02:00", "2026-03-01T09:00:00Z"], ["9", "10"], ["9e8", "1000000001"],
    ["1764237600000000001", "1764237600000000002"], ["2026-03-01T23", "2026-03-02"],
])  # fmt: skip
def test_times_are_read_as_prepare_reads_them(tmp_path, times):
    (tmp_path / "z.csv").write_text(f"user,item,time\na,y,{times[1]}\na,x,{times[0]}\n")
    assert list(histories_in(tmp_path / "z.csv")) == [Asked("a", ["x", "y"])]


@pytest.mark.parametrize(("times", "fault"), [
    (["2026-03-01", "2026-03-02", "5"], "line 4: column 'time' is '5'"),
    (["1", "2", "2026-03-02"], "line 4: column 'time' is '2026-03-02'"),
    (["1", "soon", "2"], "line 3: column 'time' is 'soon'"),
    (["1", "", "2"], "line 3: column 'time' is empty"),
])  # fmt: skip
def test_a_time_that_cannot_be_read_is_named(tmp_path, times, fault):
    rows = "".join(f"a,x,{time}\n" for time in times)
    (tmp_path / "z.csv").write_text("user,item,time\n" + rows)
    with pytest.raises(UserError, match=f"z.csv, {fault}; expected a time"):
        list(histories_in(tmp_path / "z.csv"))
