"""Semantic IDs on disk: round trip, alignment, refusals."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.tokenizer.semantic_ids import SemanticIds

TOKENS = ("B001", "ünï", "42", "B 003")
SIGNALS = ("id", "text")


def make(**changes: Any) -> SemanticIds:
    generator = torch.Generator().manual_seed(0)
    parts = {
        "item_tokens": TOKENS,
        "codes": torch.randint(8, (4, 3, 2), generator=generator),
        "vectors": torch.randn(4, 10, generator=generator),
        "codebooks": torch.randn(1, 3, 8, 5, generator=generator),
        "signals": SIGNALS,
        "metadata": {
            "dataset": "Toy",
            "split_hash": "abc",
            "fingerprint_text": "old",
            "collisions_before": 3,
            "beta": 0.5,
        },
        **changes,
    }
    return SemanticIds(**parts)


def assert_same(one: SemanticIds, two: SemanticIds) -> None:
    assert one.item_tokens == two.item_tokens and one.signals == two.signals
    assert dict(one.metadata) == dict(two.metadata)
    assert torch.equal(one.codes, two.codes) and torch.equal(one.vectors, two.vectors)
    assert (one.codebooks is None) == (two.codebooks is None)
    if one.codebooks is not None and two.codebooks is not None:
        assert torch.equal(one.codebooks, two.codebooks)
    assert (one.codes_before is None) == (two.codes_before is None)
    if one.codes_before is not None and two.codes_before is not None:
        assert torch.equal(one.codes_before, two.codes_before)


@pytest.mark.parametrize("with_codebooks", [True, False])
def test_round_trip(tmp_path: Path, with_codebooks: bool) -> None:
    ids = make()
    if not with_codebooks:
        ids = replace(ids, codebooks=None, metadata={**ids.metadata, "codebook_size": 8})
    path = tmp_path / "new" / "ids.safetensors"
    ids.save(path)
    loaded = SemanticIds.load(path)
    assert_same(loaded, ids)
    assert (loaded.levels, loaded.codebook_size) == (3, 8)
    assert type(loaded.metadata["collisions_before"]) is int
    assert [entry.name for entry in path.parent.iterdir()] == ["ids.safetensors"]


def test_codes_before_make_the_round_trip_and_may_be_absent(tmp_path: Path) -> None:
    fewer_levels = make(
        codes_before=make().codes[:, :2].clone()
    )  # a disambiguation level came after
    fewer_levels.save(tmp_path / "with")
    assert_same(SemanticIds.load(tmp_path / "with"), fewer_levels)
    make().save(tmp_path / "without")  # as versions before wrote it
    assert SemanticIds.load(tmp_path / "without").codes_before is None


@pytest.mark.parametrize(
    "wrong",
    [
        torch.zeros(3, 3, 2, dtype=torch.int64),
        torch.zeros(4, 4, 2, dtype=torch.int64),
        torch.zeros(4, 3, 1, dtype=torch.int64),
        torch.zeros(4, 3, 2),
        torch.full((4, 3, 2), 8),
    ],
)
def test_codes_before_must_fit(wrong: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="codes"):
        make(codes_before=wrong)


def test_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make().save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_umask_decides_who_may_read_the_file(tmp_path: Path) -> None:
    for umask, mode in ((0o022, 0o644), (0o027, 0o640)):
        before = os.umask(umask)
        try:
            make().save(tmp_path / "ids")
        finally:
            os.umask(before)
        assert (tmp_path / "ids").stat().st_mode & 0o777 == mode


def test_a_file_of_another_kind_is_not_to_be_deleted(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("item,price\n")
    with pytest.raises(UserError, match="mine.csv cannot .* expected semantic IDs") as error:
        SemanticIds.load(tmp_path / "mine.csv")
    assert not re.search("delete|remove", str(error.value), re.I)


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "ids"
    make().save(path)
    bad = replace(make(), metadata={"value": object()})  # type: ignore[dict-item]
    with pytest.raises(TypeError):
        bad.save(path)
    assert_same(SemanticIds.load(path), make())
    assert len(list(tmp_path.iterdir())) == 1


def test_align_follows_the_data_sets_order() -> None:
    ids = make()
    codes, vectors = ids.align(["[PAD]", "42", "B 003", "B001"], "Toy")  # "ünï" is not needed
    assert codes.dtype == torch.int64 and vectors.dtype == torch.float32
    assert int(codes[0].abs().sum()) == 0 and float(vectors[0].abs().sum()) == 0
    for row, token in ((1, "42"), (2, "B 003"), (3, "B001")):
        source = TOKENS.index(token)
        assert torch.equal(codes[row], ids.codes[source])
        assert torch.equal(vectors[row], ids.vectors[source])


def test_align_accepts_what_agrees() -> None:
    expected = {
        "split_hash": "abc", "levels": 3, "codebook_size": 8, "signals": ["id", "text"],
        "width": 10, "fingerprints": {"text": "old", "image": "not quantized"},
    }  # fmt: skip
    codes, _ = make().align(["[PAD]", *TOKENS], "Toy", **expected)  # type: ignore[arg-type]
    assert torch.equal(codes[1:], make().codes)


@pytest.mark.parametrize(
    ("expected", "words"),
    [
        ({"split_hash": "xyz"}, ["split", "abc", "xyz"]),
        ({"levels": 4}, ["codebook_levels", "3", "4"]),
        ({"codebook_size": 256}, ["codebook_size", "8", "256"]),
        ({"signals": ["id", "text", "image"]}, ["modalities", "image"]),
        ({"width": 5}, ["codebook_dim", "of width", "5"]),
        ({"fingerprints": {"text": "new"}}, ["text features old", "new"]),
    ],
)
def test_align_refuses_what_differs(expected: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        make().align(["[PAD]", *TOKENS], "Shop", **expected)
    assert all(word in str(caught.value) for word in [*words, "Shop", "Toy"])


def test_align_names_missing_items() -> None:
    with pytest.raises(UserError, match=r"2 of the 3 items of data set 'Shop'.*'Toy'.*'new1'"):
        make().align(["[PAD]", "new1", "42", "new2"], "Shop")
    with pytest.raises(ValueError, match="PAD"):
        make().align(["42"], "Shop")


@pytest.mark.parametrize("keep", [0, 7, 60, 400, -1])
def test_truncated_files_are_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "ids.safetensors"
    make().save(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match="ids.safetensors"):
        SemanticIds.load(path)


def test_garbled_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "ids.safetensors"
    path.write_bytes(b"not at all" * 100)
    with pytest.raises(UserError, match="ids.safetensors"):
        SemanticIds.load(path)
    save_file({"codes": torch.zeros(2)}, path)  # a valid file of another kind
    with pytest.raises(UserError, match="ids.safetensors"):
        SemanticIds.load(path)
    header = '{"format": 1, "signals": ["id", "text"], "metadata": {"codebook_size": 8}}'
    save_file({"codes": torch.zeros(2)}, path, metadata={"recbole_bbqrec": header})
    with pytest.raises(UserError, match="ids.safetensors"):
        SemanticIds.load(path)
    with pytest.raises(UserError, match="no file"):
        SemanticIds.load(tmp_path / "absent")


def test_damaged_values_are_refused(tmp_path: Path) -> None:
    """A flipped code that leaves the codebook's range does not pass as an item's ID."""
    ids = make()
    path = tmp_path / "ids.safetensors"
    ids.save(path)
    data = path.read_bytes()
    raw = ids.codes.numpy().tobytes()
    assert data.count(raw) == 1
    path.write_bytes(data.replace(raw, b"\xff" * len(raw)))
    with pytest.raises(UserError, match="the checksum does not fit"):
        SemanticIds.load(path)


@pytest.mark.parametrize("changed", [("codes", 0, 1), ("vectors", 0, 3), ("codebooks", 5, 1)])
def test_one_changed_bit_is_refused(tmp_path: Path, changed: tuple[str, int, int]) -> None:
    """Codes that stay within the codebook and finite vectors are found by the checksum alone."""
    ids, path = make(), tmp_path / "ids.safetensors"
    ids.save(path)
    name, at, bit = changed
    raw = getattr(ids, name).numpy().tobytes()
    data = bytearray(path.read_bytes())
    data[data.index(raw) + at] ^= bit
    path.write_bytes(data)
    with pytest.raises(UserError, match="the checksum does not fit"):
        SemanticIds.load(path)


def test_a_changed_header_is_refused_and_an_old_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "ids.safetensors"
    make().save(path)
    with safe_open(str(path), framework="pt") as file:
        header = json.loads(file.metadata()["recbole_bbqrec"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    header["metadata"]["split_hash"] = "another"
    save_file(tensors, path, metadata={"recbole_bbqrec": json.dumps(header)})
    with pytest.raises(UserError, match="the checksum does not fit"):
        SemanticIds.load(path)
    del header["sha256"]  # as versions before this one wrote it
    save_file(tensors, path, metadata={"recbole_bbqrec": json.dumps(header)})
    assert SemanticIds.load(path).metadata["split_hash"] == "another"


def test_the_umask_decides_who_may_read(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        make().save(tmp_path / "ids.safetensors")
    finally:
        os.umask(before)
    assert (tmp_path / "ids.safetensors").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"item_tokens": TOKENS[:3]}, "3 item tokens"),
        ({"item_tokens": ("a", "a", "b", "c")}, "distinct"),
        ({"item_tokens": ("a", "b\nc", "d", "e")}, "line breaks"),
        ({"item_tokens": ("a", "", "d", "e")}, "empty"),
        ({"codes": torch.zeros(4, 3, 3, dtype=torch.int64)}, "codes"),
        ({"codes": torch.zeros(4, 3, 2)}, "codes"),
        ({"codes": torch.full((4, 3, 2), 8)}, "codes must lie"),
        ({"vectors": torch.full((4, 2), float("nan"))}, "vectors"),
        ({"codebooks": torch.zeros(1, 2, 8, 5)}, "codebooks"),
        ({"codebooks": None}, "codebook_size"),
    ],
)
def test_inconsistent_parts_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**changes)
