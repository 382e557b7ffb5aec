"""The three parsers of McAuley's files: what they keep, what they refuse, and fuzzing."""

from __future__ import annotations

import gzip
import json
import random
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.prepare.mcauley.images import DIMENSION, RECORD_BYTES, write_image_features
from recbole_bbqrec.prepare.mcauley.reviews import read_metadata, read_reviews
from tests.support.raw import (
    DAY,
    START,
    asin,
    image_record,
    metadata,
    review,
    write_metadata,
    write_reviews,
)
from tests.support.raw import write_raw as write_raw_files

FUZZ = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file"


def write_lines(path, lines):
    with gzip.open(path, "wb") as file:
        file.writelines(line + b"\n" for line in lines)


def test_reviews_are_sorted_by_day_then_asin(path):
    rows = [("u2", 5, 0), ("u1", 9, 1), ("u1", 2, 1), ("u1", 7, 0), ("u2", 1, 0)]
    write_reviews(path, [review(user, asin(item), day) for user, item, day in rows])
    found = read_reviews(path)
    assert [(e.user, e.item, e.order) for e in found.events] == [
        ("u2", asin(1), 0), ("u2", asin(5), 1), ("u1", asin(7), 0), ("u1", asin(2), 1),
        ("u1", asin(9), 2),
    ]  # fmt: skip
    assert found.times == [START, START, START, START + DAY, START + DAY]
    assert (found.sparse_users, found.sparse_items, found.is_core) == (2, 5, False)


def test_order_is_that_of_a_stable_sort_of_the_public_file(tmp_path):
    reviews = write_raw_files(tmp_path)
    found = read_reviews(tmp_path / "reviews_Beauty_5.json.gz")
    assert found.is_core and found.repeated == 0
    expected: dict[str, list] = {}
    for record in reviews:  # in the file's order, by ASIN
        expected.setdefault(record["reviewerID"], []).append(record)
    for records in expected.values():
        records.sort(key=lambda record: record["unixReviewTime"])
    pairs = [(user, record["asin"]) for user, records in expected.items() for record in records]
    assert [(event.user, event.item) for event in found.events] == pairs
    # Several reviews fall on one day, or the check above would be of no use.
    assert any(
        a["unixReviewTime"] == b["unixReviewTime"]
        for records in expected.values()
        for a, b in zip(records, records[1:])
    )
    random.Random(1).shuffle(reviews)
    write_reviews(tmp_path / "shuffled", reviews)
    again = read_reviews(tmp_path / "shuffled")
    assert sorted(again.events) == sorted(found.events)


def test_times_are_exact_in_float32(tmp_path):
    """Midnights are multiples of 128 s, which is float32's spacing at today's Unix times."""
    reviews = write_raw_files(tmp_path)
    times = np.array([record["unixReviewTime"] for record in reviews])
    assert (times.astype(np.float32).astype(np.int64) == times).all()


def test_repeated_pairs_are_kept_and_counted(path):
    write_reviews(path, [review("u1", asin(1), 0), review("u1", asin(1), 2)])
    found = read_reviews(path)
    assert len(found.events) == 2 and found.repeated == 1


GOOD = json.dumps(review("u1", asin(1), 0)).encode()
BAD_REVIEWS = [
    (b"{", "line 2 is no JSON object or Python literal"),
    (b"[1]", r"line 2 holds \[1\]"),
    (b"\xff\xfe", "line 2 is not UTF-8"),
    (b'{"asin": "B000000001", "unixReviewTime": 1}', "line 2 has reviewerID None"),
    (b'{"reviewerID": "a  b", "asin": "B000000001", "unixReviewTime": 1}', "reviewerID 'a  b'"),
    (b'{"reviewerID": "\\ud800", "asin": "B000000001", "unixReviewTime": 1}', "has reviewerID"),
    (b'{"reviewerID": "u", "asin": 5, "unixReviewTime": 1}', "line 2 has asin 5"),
    (b'{"reviewerID": "u", "asin": "NA", "unixReviewTime": 1}', "line 2 has asin 'NA'"),
    (b'{"reviewerID": "u", "asin": "B", "unixReviewTime": "1"}', "has unixReviewTime '1'"),
    (b'{"reviewerID": "u", "asin": "B", "unixReviewTime": NaN}', "has unixReviewTime nan"),
    (b'{"reviewerID": "u", "asin": "B", "unixReviewTime": true}', "has unixReviewTime True"),
    (b"{" * 100_000, "line 2 is no JSON"),
    (b"9" * 10_000, "line 2"),
    (b"__import__('os').system('true')", "line 2 is no JSON object or Python literal"),
]


@pytest.mark.parametrize(("line", "message"), BAD_REVIEWS)
def test_bad_review_lines(path, line, message):
    write_lines(path, [GOOD, line])
    with pytest.raises(UserError, match=message):
        read_reviews(path)


def test_blank_lines_are_no_records(path):
    write_lines(path, [b"", GOOD, b"   "])
    assert len(read_reviews(path).events) == 1


def test_line_that_would_fill_memory(path):
    write_lines(path, [GOOD, b" " * (1 << 24) + b"x"])
    with pytest.raises(UserError, match="line 2 is longer than 16 MiB"):
        read_reviews(path)


@pytest.mark.parametrize("read", [read_reviews, lambda path: read_metadata(path, {asin(1)})])
def test_damaged_gzip(path, read):
    write_lines(path, [GOOD] * 50)
    whole = path.read_bytes()
    for damaged in (whole[:-12], b"plain text", whole[:20] + b"\0" * 30 + whole[50:]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="cannot be read to its end"):
            read(path)
    path.unlink()
    with pytest.raises(UserError, match="not found"):
        read(path)


def test_no_review(path):
    write_lines(path, [])
    with pytest.raises(UserError, match="holds no review"):
        read_reviews(path)


def test_metadata_of_wanted_items_only(path):
    records = [metadata(asin(i), f"title {i}", None) for i in range(5)]
    write_metadata(path, records)
    found = read_metadata(path, {asin(3), asin(1), asin(9)})
    assert found.items == {
        asin(i): {"title": f"title {i}", "categories": [["Beauty", "Skin Care"]]} for i in (1, 3)
    }
    assert (found.lines, found.repeated) == (5, 0)


def test_metadata_where_another_text_looks_like_an_asin(path):
    """The quick look at a line must not skip one that is wanted."""
    first = metadata(asin(1), "read 'asin': 'B000000007' for more", None)
    second = {"title": "x", "asin": asin(2), "description": "\"asin\": 'B000000008'"}
    write_metadata(path, [first, second])
    assert list(read_metadata(path, {asin(1), asin(2)}).items) == [asin(1), asin(2)]
    escaped = b"{'\\x61sin': '" + asin(3).encode() + b"', 'title': 'found'}"
    write_lines(path, [escaped])
    assert read_metadata(path, {asin(3)}).items == {asin(3): {"title": "found"}}


def test_repeated_metadata(path):
    same, other = metadata(asin(1), "one", None), metadata(asin(1), "two", None)
    write_metadata(path, [same, same])
    assert read_metadata(path, {asin(1)}).repeated == 1
    write_metadata(path, [same, same, other])
    with pytest.raises(UserError, match="line 3 describes 'B000000001' otherwise than line 1"):
        read_metadata(path, {asin(1)})


def test_metadata_of_another_category(path):
    write_metadata(path, [metadata(asin(1), "one", None)])
    with pytest.raises(UserError, match="describes none of the 1 items"):
        read_metadata(path, {asin(2)})


def test_image_rows(path, tmp_path):
    rng = np.random.default_rng(0)
    vectors = rng.gamma(1.0, 5.0, (70, DIMENSION))  # more than a block of records
    vectors[2] = 0
    order = rng.permutation(70).tolist()
    repeated = image_record(asin(8), vectors[8])
    path.write_bytes(b"".join(image_record(asin(i), vectors[i]) for i in order) + repeated)
    wanted = {asin(i) for i in (8, 2, 69, 33, 500)}
    found = write_image_features(path, wanted, tmp_path / "out.npy")
    kept = [i for i in order if i in (8, 69, 33)]
    assert found.tokens == [asin(i) for i in kept]
    assert (found.unwanted, found.repeated, found.zero) == (66, 1, 1)
    matrix = np.load(tmp_path / "out.npy", allow_pickle=False)
    assert matrix.dtype == np.float16
    np.testing.assert_array_equal(matrix, vectors[kept].astype(np.float32).astype(np.float16))
    assert found.largest == np.abs(vectors[kept].astype(np.float32)).max()
    assert [p.name for p in tmp_path.glob("out*")] == ["out.npy"]


def test_images_are_streamed(path, tmp_path):
    """A file of 10 MiB, all of it wanted, never stands in memory: a block of 1 MiB does."""
    vector = np.ones(DIMENSION)
    path.write_bytes(b"".join(image_record(asin(i), vector) for i in range(640)))
    wanted = {asin(i) for i in range(640)}
    tracemalloc.start()
    try:
        write_image_features(path, wanted, tmp_path / "out.npy")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


def ones(value=1.0):
    vector = np.ones(DIMENSION)
    vector[7] = value
    return vector


TWO = image_record(asin(1), ones()) + image_record(asin(2), ones())
BAD_IMAGES = [
    (b"", "is empty"),
    (TWO[:-1], "record 2 ends after 16,393 bytes"),
    (TWO[:RECORD_BYTES + 4], "record 2 begins with"),
    (TWO[:RECORD_BYTES + 10], "record 2 ends after 10 bytes"),
    # Records of 2,048 numbers: the second ASIN is not where it should be.
    (b"".join(asin(i).encode() + ones().astype("<f4").tobytes()[:8192] for i in (1, 2, 3)),
     "record 2 begins with"),
    (TWO + image_record(asin(1), ones(2.0)), "record 3 gives 'B000000001' another vector"),
    (image_record(asin(1), ones(np.nan)), "record 1 .* holds a NaN"),
    (image_record(asin(1), ones(-np.inf)), "record 1 .* holds a NaN or an infinity"),
    (image_record(asin(1), ones(70_000.0)), "record 1 .* holds 70000, beyond float16's 65,504"),
    (image_record(asin(7), ones()), "has no vector for any of the 2 items"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "message"), BAD_IMAGES)
def test_bad_image_files(path, tmp_path, content, message):
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        write_image_features(path, {asin(1), asin(2)}, tmp_path / "out.npy")
    assert not (tmp_path / "out.npy").exists()


def test_absent_image_file(path, tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        write_image_features(path, {asin(1)}, tmp_path / "out.npy")


# Bytes as they come, and bytes that get past the first checks.
literals = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from(["asin", "reviewerID", "unixReviewTime", "title", "description"])
values = literals | st.sampled_from([asin(1), asin(2), START])
records = st.dictionaries(fields, values).map(lambda r: repr(r).encode("utf-8", "surrogatepass"))
lines = st.lists(records | st.just(GOOD) | st.binary(max_size=60), max_size=6)
files = st.binary(max_size=200) | lines.map(lambda parts: gzip.compress(b"\n".join(parts)))


@pytest.mark.slow
@FUZZ
@given(content=files, cut=st.integers(0, 40))
def test_fuzz_reviews(path, content, cut):
    path.write_bytes(content[: len(content) - cut] if cut < 10 else content)
    try:
        found = read_reviews(path)
    except UserError as error:
        str(error).encode("utf-8")
        return
    assert len(found.events) == len(found.times) > 0
    for event in found.events:
        assert not set(event.user + event.item) & set('\t\n" ')


@FUZZ
@given(content=files, cut=st.integers(0, 40))
def test_fuzz_metadata(path, content, cut):
    path.write_bytes(content[: len(content) - cut] if cut < 10 else content)
    try:
        found = read_metadata(path, {asin(1), asin(2)})
    except UserError as error:
        str(error).encode("utf-8")
        return
    assert set(found.items) <= {asin(1), asin(2)} and found.items


chunks = st.sampled_from([
    image_record(asin(1), ones()), image_record(asin(2), ones(3.0)), image_record(asin(5), ones()),
    image_record(asin(1), ones(np.nan)), image_record(asin(2), np.zeros(DIMENSION)),
    asin(1).encode(),
])  # fmt: skip


@FUZZ
@given(parts=st.lists(chunks | st.binary(max_size=30), max_size=5))
def test_fuzz_images(path, tmp_path, parts):
    path.write_bytes(b"".join(parts))
    try:
        found = write_image_features(path, {asin(1), asin(2)}, tmp_path / "out.npy")
    except UserError:
        return
    matrix = np.load(tmp_path / "out.npy", allow_pickle=False)
    assert matrix.shape == (len(found.tokens), DIMENSION) and np.isfinite(matrix).all()
    assert len(set(found.tokens)) == len(found.tokens)
