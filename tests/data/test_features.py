"""Feature matrices are aligned by raw token and every fault in them is named."""

from __future__ import annotations

import hashlib
import logging

import numpy as np
import pytest
import torch
import yaml

from recbole_bbqrec.atomic import sha256_of
from recbole_bbqrec.data.features import load_modality
from recbole_bbqrec.errors import UserError
from tests.support.data import write_features

TOKENS = ["[PAD]", "a", "b", "c", "d"]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f4", "<f8"])
def test_rows_follow_tokens(tmp_path, seed, dtype):
    rng = np.random.default_rng(seed)
    vectors = {t: rng.standard_normal(3).astype(np.float16) for t in "abcxyz"}  # d has none
    tokens = list(rng.permutation(list(vectors)))
    matrix = np.stack([vectors[t] for t in tokens]).astype(dtype)
    write_features(tmp_path, "S", "text", tokens, matrix)
    loaded = load_modality(tmp_path, "S", "text", TOKENS, expected_dim=3)

    assert loaded.matrix.dtype == (torch.float16 if dtype == "<f2" else torch.float32)
    assert loaded.present.tolist() == [False, True, True, True, False]
    assert loaded.dim == 3
    for row, token in enumerate(TOKENS):
        expected = vectors[token] if token in "abc" else np.zeros(3)
        np.testing.assert_array_equal(loaded.matrix[row].numpy(), expected)


def test_fortran_order_and_windows_line_ends(tmp_path):
    matrix = np.asfortranarray(np.arange(8, dtype=np.float32).reshape(4, 2) + 1)
    write_features(tmp_path, "S", "text", list("dcba"), matrix)
    (tmp_path / "S.text.items.txt").write_bytes(b"d\r\nc\r\nb\r\na")
    loaded = load_modality(tmp_path, "S", "text", TOKENS)
    assert loaded.matrix[:, 0].tolist() == [0, 7, 5, 3, 1]


@pytest.mark.parametrize("content", [b"\xef\xbb\xbfd\nc\nb\na\n", b" d\nc \r\nb\t\na"])
@pytest.mark.parametrize("tokens", [TOKENS, [t + " " for t in TOKENS]])
def test_marks_and_blanks_are_no_part_of_a_token(tmp_path, content, tokens):
    write_features(tmp_path, "S", "text", [], np.arange(1, 5, dtype=np.float32)[:, None])
    (tmp_path / "S.text.items.txt").write_bytes(content)
    assert load_modality(tmp_path, "S", "text", tokens).matrix[:, 0].tolist() == [0, 4, 3, 2, 1]


def test_coverage_is_logged(tmp_path, caplog):
    write_features(tmp_path, "S", "text", ["a", "x"], np.ones((2, 2), np.float32))
    with caplog.at_level(logging.INFO):
        load_modality(tmp_path, "S", "text", TOKENS)
    assert "text: 1 / 4 items" in caplog.text


def test_fingerprint_is_of_both_files(tmp_path):
    def load():
        return load_modality(tmp_path, "S", "text", TOKENS).fingerprint

    matrix = np.ones((2, 2), np.float32)
    write_features(tmp_path, "S", "text", ["a", "b"], matrix)
    first = load()
    parts = [(tmp_path / f"S.text.{end}").read_bytes() for end in ("npy", "items.txt")]
    digest = hashlib.sha256(b"".join(hashlib.sha256(p).digest() for p in parts)).hexdigest()
    assert first == digest[:16]
    write_features(tmp_path, "S", "text", ["b", "a"], matrix)
    second = load()
    write_features(tmp_path, "S", "text", ["b", "a"], matrix * 2)
    assert len({first, second, load()}) == 3


def test_metadata_is_read(tmp_path):
    write_features(tmp_path, "S", "text", ["a"], np.ones((1, 2), np.float32))
    assert load_modality(tmp_path, "S", "text", TOKENS).metadata == {}
    (tmp_path / "S.features.yaml").write_text("text: {encoder: some encoder, dimension: 2}\n")
    loaded = load_modality(tmp_path, "S", "text", TOKENS)
    assert loaded.metadata == {"encoder": "some encoder", "dimension": 2}


def _nan(matrix):
    matrix[2, 1] = np.nan
    return matrix


def _too_large(matrix):
    matrix = matrix.astype(np.float64)
    matrix[2, 0] = 1e300
    return matrix


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m[:2], "lists 3 items but .* has 2 rows"),
        (_nan, r"row 2 \(item 'c'\) holds a NaN"),
        (_too_large, r"row 2 \(item 'c'\) holds a NaN or an infinity"),
        (lambda m: m.astype(np.int64), "dtype int64; expected float16 or float32"),
        (lambda m: m[:, 0], r"holds \(3,\); expected a matrix"),
        (lambda m: m[:, :0], r"holds \(3, 0\); expected a matrix"),
        (lambda m: m[:, :1], "has 1 columns; expected 2"),
        (lambda m: np.array([["x", None]] * 3, dtype=object), "cannot be read: .* a NumPy matrix"),
    ],
)
def test_bad_matrix(tmp_path, change, message):
    matrix = change(np.ones((3, 2), np.float32))
    write_features(tmp_path, "S", "text", ["a", "b", "c"], matrix)
    with pytest.raises(UserError, match=message):
        load_modality(tmp_path, "S", "text", TOKENS, expected_dim=2)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("a\nb\na\n", "line 3: item 'a' already stands on line 1"),
        ("a\nb\na \n", "line 3: item 'a' already stands on line 1"),
        ("a\n\nc\n", "line 2 is blank"),
        ("", "is empty"),
        ("1\n2\n3\n", "None of the 3 items .* raw item tokens"),
        ("[PAD]\n2\n3\n", "None of the 3 items"),  # the padding is not an item
        ("a\nb\nc\nd\n", "lists 4 items but .* has 3 rows"),
        ("a\nb\n\xff\n", "UTF-8"),
    ],
)
def test_bad_item_list(tmp_path, lines, message):
    write_features(tmp_path, "S", "text", [], np.ones((3, 2), np.float32))
    (tmp_path / "S.text.items.txt").write_bytes(lines.encode("latin-1"))
    with pytest.raises(UserError, match=message):
        load_modality(tmp_path, "S", "text", TOKENS)


def test_missing_files_are_listed_with_the_remedy(tmp_path):
    write_features(tmp_path, "S", "text", ["a"], np.ones((1, 2), np.float32))
    with pytest.raises(UserError) as error:
        load_modality(tmp_path, "S", "image", TOKENS)
    named = ("S.image.npy", "S.image.items.txt", "S.text.npy", "prepare S --data_path=")
    for part in (*named, "--features_only", "`modalities`"):
        assert part in str(error.value)
    with pytest.raises(UserError, match="files there: none"):
        load_modality(tmp_path / "absent", "S", "image", TOKENS)


def test_truncated_matrix(tmp_path):
    write_features(tmp_path, "S", "text", ["a"], np.ones((1, 200), np.float32))
    path = tmp_path / "S.text.npy"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(UserError, match="cannot be read: .* a NumPy matrix"):
        load_modality(tmp_path, "S", "text", TOKENS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text: {dimension: 7}", "2 columns, but the features.yaml beside it says dimension: 7"),
        ("text: [", "cannot be read: .* YAML"),
        ("- text", "expected a mapping"),
        ("text: 3", "expected a mapping"),
        ("text: !!python/object/apply:os.getcwd []", "cannot be read: .* YAML"),
    ],
)
def test_bad_metadata(tmp_path, content, message):
    write_features(tmp_path, "S", "text", ["a"], np.ones((1, 2), np.float32))
    (tmp_path / "S.features.yaml").write_text(content)
    with pytest.raises(UserError, match=message):
        load_modality(tmp_path, "S", "text", TOKENS)


def _reversed(folder):
    matrix = np.load(folder / "S.text.npy")
    np.save(folder / "S.text.npy", matrix[::-1])


def _one_bit(folder):
    path = folder / "S.text.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def _another_item(folder):
    (folder / "S.text.items.txt").write_text("a\nc\n")


@pytest.mark.parametrize("damage", [_reversed, _one_bit, _another_item])
def test_files_that_differ_from_their_checksums_are_refused(tmp_path, damage):
    """All of them are well-formed: without the comparison they would pass for the features."""
    write_features(tmp_path, "S", "text", ["a", "b"], np.eye(2, dtype=np.float32))
    names = {"sha256": "S.text.npy", "items_sha256": "S.text.items.txt"}
    entry = {key: sha256_of(tmp_path / name) for key, name in names.items()}
    (tmp_path / "S.features.yaml").write_text(yaml.safe_dump({"text": entry}))
    assert load_modality(tmp_path, "S", "text", TOKENS).metadata == entry
    damage(tmp_path)
    with pytest.raises(UserError, match="S.text.* has the SHA-256 .* damaged, or was replaced"):
        load_modality(tmp_path, "S", "text", TOKENS)


def test_an_archive_or_a_pickle_in_a_matrixs_place_is_refused(tmp_path):
    write_features(tmp_path, "S", "text", ["a"], np.ones((1, 2), np.float32))
    np.savez(tmp_path / "other.npz", np.ones((1, 2), np.float32))
    for content in ((tmp_path / "other.npz").read_bytes(), b"\x80\x04N.", b""):
        (tmp_path / "S.text.npy").write_bytes(content)
        with pytest.raises(UserError, match="S.text.npy cannot be read"):
            load_modality(tmp_path, "S", "text", TOKENS)
