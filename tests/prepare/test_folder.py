"""Preparation from source files: what is written, and what is refused without leaving a trace."""

from __future__ import annotations

import gzip
import json
import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import yaml

from recbole_bbqrec.cli.main import main
from recbole_bbqrec.data.dataset import MultiModalDataset
from recbole_bbqrec.data.loaders import create_dataset
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.prepare.atomic_files import Target, rebuilding
from recbole_bbqrec.prepare.folder import prepare_from_source
from recbole_bbqrec.prepare.on_demand import check_files
from recbole_bbqrec.prepare.text import MAX_CHARACTERS, encode_labels, encode_texts, item_text
from tests.support.data import make_config

ITEMS = [
    {"item_id": "A1", "title": "Red &amp; <b>gold</b>  lamp", "brand": "Lux", "price": 3},
    {"item_id": "B2", "title": "blue kettle", "categories": [["Home", "Kitchen"], ["Tea"]]},
    {"item_id": "C3", "categories": ["Home", "Lamps"]},
    {"item_id": "D4"},
    {"item_id": "E5", "title": "never bought"},
    {"item_id": "F6", "description": ["gold lamp", "size < 5"], "title": "lamp"},
]
EVENTS = {"u9": ["A1", "B2", "D4"], "u1": ["F6", "C3"], "u5": ["A1"]}
LABELS = np.array([[1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 1]], dtype=np.uint8)
LABELLED = ["F6", "A1", "C3", "E5"]


def write_gzip(path, lines):
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in lines)


def interaction_lines(events=None):
    rows = [
        f"{user}\t{item}\t{order}"
        for user, items in (events or EVENTS).items()
        for order, item in enumerate(items)
    ]
    return ["user_id\titem_id\torder", *rows]


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    write_gzip(folder / "interactions.tsv.gz", interaction_lines())
    write_gzip(folder / "items.jsonl.gz", [json.dumps(item) for item in ITEMS])
    np.savez_compressed(folder / "image_labels_multihot.npz", multihot=LABELS)
    (folder / "image_items.txt").write_text("".join(t + "\n" for t in LABELLED))
    vectors = np.arange(12, dtype=np.float16).reshape(6, 2) + 1
    np.save(folder / "text_minilm.npy", vectors)
    return folder


def test_prepared_files(source, tmp_path):
    root = tmp_path / "dataset"
    report = prepare_from_source("Tiny", source, root)
    folder = root / "Tiny"
    assert (folder / "Tiny.inter").read_text() == (
        "user_id:token\titem_id:token\ttimestamp:float\n"
        "u9\tA1\t0\nu9\tB2\t1\nu9\tD4\t2\nu1\tF6\t0\nu1\tC3\t1\nu5\tA1\t0\n"
    )
    # D4 has no text, E5 no interaction.
    assert (folder / "Tiny.text.items.txt").read_text().split() == ["A1", "B2", "C3", "F6"]
    # C3 has no label, E5 no interaction.
    assert (folder / "Tiny.image.items.txt").read_text().split() == ["F6", "A1"]
    assert (folder / "Tiny.titles.tsv").read_text().splitlines()[1:] == [
        "A1\tRed & gold lamp", "B2\tblue kettle", "C3\tHome, Lamps", "D4\t", "F6\tlamp",
    ]  # fmt: skip
    metadata = yaml.safe_load((folder / "Tiny.features.yaml").read_text())
    assert metadata["image"]["encoder"] == "Rekognition image labels, a stand-in for CNN features"
    assert metadata["text"]["encoder"].startswith("TF-IDF")
    for modality in ("text", "image"):
        matrix = np.load(folder / f"Tiny.{modality}.npy")
        assert matrix.dtype == np.float16
        assert matrix.shape == (metadata[modality]["items"], metadata[modality]["dimension"])
        np.testing.assert_allclose(np.linalg.norm(matrix.astype(float), axis=1), 1, atol=2e-3)
    assert sorted(os.listdir(root)) == ["Tiny"]  # no temporary folder is left
    counts = (report.users, report.items, report.interactions, report.with_image)
    assert counts == (3, 5, 6, 2)
    assert (report.with_text, report.with_title, report.average_length) == (4, 3, 2.0)


def write_times(source, lines):
    with gzip.open(source / "times.tsv.gz", "wt") as file:
        file.write("\n".join(["user_id\titem_id\torder\tunix_time", *lines]) + "\n")


TIMES = [
    "u9\tA1\t0\t1300000000", "u9\tB2\t1\t1300000000", "u9\tD4\t2\t1400000000",
    "u1\tF6\t0\t", "u1\tC3\t1\t", "u5\tA1\t0\t1350000000",
]  # fmt: skip


def test_real_times_survive(source, tmp_path):
    write_times(source, TIMES)
    prepare_from_source("Tiny", source, tmp_path)
    assert (tmp_path / "Tiny" / "Tiny.inter").read_text() == (
        "user_id:token\titem_id:token\ttimestamp:float\tunix_time:float\n"
        "u9\tA1\t0\t1300000000\nu9\tB2\t1\t1300000000\nu9\tD4\t2\t1400000000\n"
        "u1\tF6\t0\t0\nu1\tC3\t1\t1\nu5\tA1\t0\t1350000000\n"
    )
    dataset = create_dataset(make_config(tmp_path, "Tiny", modalities=None), MultiModalDataset)
    assert dataset.ties["users_without_times"] == 1
    assert "unix_time" not in dataset.inter_feat


@pytest.mark.parametrize(
    ("row", "line", "words"),
    [
        (1, "u9\tB2\t1\t12x", ["line 3", "'12x'", "whole seconds"]),
        (1, "u9\tB2\t1", ["line 3", "nothing", "whole seconds"]),
        (2, "u9\tD4\t2\t1200000000", ["line 4", "goes back", "1300000000"]),
        (2, "u9\tD4\t2\t", ["line 4", "whole seconds"]),
        (4, "u1\tC3\t1\t5", None),
        (2, "u9\tA1\t2\t1400000000", ["line 4", "D4"]),
        (5, None, ["5 rows", "expected 6"]),
    ],
)
def test_faulty_times_are_named(source, tmp_path, row, line, words):
    lines = [*TIMES[:row], *([line] if line else []), *TIMES[row + 1 :]]
    write_times(source, lines)
    with pytest.raises(UserError) as error:
        prepare_from_source("Tiny", source, tmp_path)
    for word in ["times.tsv.gz", *(words or ["line 6"])]:
        assert word in str(error.value)
    assert not (tmp_path / "Tiny").exists()


def test_prepared_set_loads(source, tmp_path):
    prepare_from_source("Tiny", source, tmp_path)
    dataset = MultiModalDataset(make_config(tmp_path, "Tiny", modalities=["text", "image"]))
    assert (dataset.user_num, dataset.item_num, dataset.inter_num) == (4, 6, 6)
    present = dataset.item_features("image").present.tolist()
    assert {t for t, p in zip(dataset.item_tokens, present) if p} == {"F6", "A1"}


def test_interactions_that_changed_since_are_named(source, tmp_path, caplog):
    prepare_from_source("Tiny", source, tmp_path)
    config = make_config(tmp_path, "Tiny")
    check_files(config)
    assert not caplog.text
    path = tmp_path / "Tiny" / "Tiny.inter"
    path.write_bytes(path.read_bytes().replace(b"u9\tB2", b"u9\tB3"))
    check_files(config)
    assert f"{path} has changed since `prepare` wrote it" in caplog.text


def test_precomputed_rows_follow_the_item_file(source, tmp_path):
    report = prepare_from_source("Tiny", source, tmp_path, text_encoder="precomputed")
    tokens = (tmp_path / "Tiny" / "Tiny.text.items.txt").read_text().split()
    matrix = np.load(tmp_path / "Tiny" / "Tiny.text.npy")
    assert dict(zip(tokens, matrix.tolist())) == {
        "A1": [1, 2], "B2": [3, 4], "C3": [5, 6], "F6": [11, 12],
    }  # fmt: skip
    assert "all-MiniLM-L6-v2" in report.text_encoder


def test_preparation_is_repeatable(source, tmp_path):
    contents = []
    for run in ("a", "b"):
        prepare_from_source("Tiny", source, tmp_path / run)
        files = sorted((tmp_path / run / "Tiny").iterdir())
        contents.append({path.name: path.read_bytes() for path in files})
    assert contents[0] == contents[1]


def test_existing_set_is_replaced_only_when_forced_and_keeps_other_files(source, tmp_path):
    prepare_from_source("Tiny", source, tmp_path)
    folder = tmp_path / "Tiny"
    (folder / "Tiny.audio.npy").write_bytes(b"mine")
    (folder / "notes").mkdir()
    (folder / "notes" / "a.txt").write_text("mine")
    described = yaml.safe_load((folder / "Tiny.features.yaml").read_text())
    described["audio"] = {"encoder": "mine"}
    (folder / "Tiny.features.yaml").write_text(yaml.safe_dump(described))
    with pytest.raises(UserError, match="already exists; use --force"):
        prepare_from_source("Tiny", source, tmp_path)
    write_gzip(source / "interactions.tsv.gz", interaction_lines({"u1": ["A1", "F6"]}))
    (source / "image_labels_multihot.npz").unlink()  # its features are not made again
    report = prepare_from_source("Tiny", source, tmp_path, force=True)
    assert report.interactions == 2
    assert report.notes == (
        "Removed features that an earlier prepare made: image.",
        "Kept from before: Tiny.audio.npy, notes.",
    )
    assert not list(folder.glob("Tiny.image.*"))
    assert len((folder / "Tiny.inter").read_text().splitlines()) == 3
    assert (folder / "Tiny.audio.npy").read_bytes() == b"mine"
    assert (folder / "notes" / "a.txt").read_text() == "mine"
    again = yaml.safe_load((folder / "Tiny.features.yaml").read_text())
    assert set(again) == {"text", "audio"} and again["audio"] == {"encoder": "mine"}
    assert again["text"]["items"] == 2
    assert sorted(os.listdir(tmp_path)) == ["Tiny", "source"]


def test_failing_rename_restores_the_old_set(source, tmp_path, monkeypatch):
    prepare_from_source("Tiny", source, tmp_path)
    before = (tmp_path / "Tiny" / "Tiny.inter").read_bytes()
    write_gzip(source / "interactions.tsv.gz", interaction_lines({"u1": ["A1", "F6"]}))
    rename = os.rename

    def fail_to_move_in(old, new):
        if Path(new).name == "Tiny" and not Path(old).name.endswith(".old"):
            raise OSError("disk full")
        rename(old, new)

    monkeypatch.setattr(os, "rename", fail_to_move_in)
    with pytest.raises(OSError, match="disk full"):
        prepare_from_source("Tiny", source, tmp_path, force=True)
    assert (tmp_path / "Tiny" / "Tiny.inter").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["Tiny", "source"]


def test_link_to_a_folder_stays_a_link(source, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "Tiny").symlink_to(tmp_path / "real", target_is_directory=True)
    prepare_from_source("Tiny", source, tmp_path / "dataset", force=True)
    assert (tmp_path / "dataset" / "Tiny").is_symlink()
    assert (tmp_path / "real" / "Tiny.inter").is_file()


def truncate(path):
    path.write_bytes(path.read_bytes()[:-12])


def events_with(line, place):
    lines = interaction_lines()
    lines[place] = line
    return lambda s: write_gzip(s / "interactions.tsv.gz", lines)


def items_with(line, place=1):
    lines = [json.dumps(item) for item in ITEMS]
    lines[place] = line
    return lambda s: write_gzip(s / "items.jsonl.gz", lines)


def labels(matrix, key="multihot"):
    return lambda s: np.savez(s / "image_labels_multihot.npz", **{key: matrix})


INTERACTIONS_FAULTS = [
    (lambda s: truncate(s / "interactions.tsv.gz"), "interactions.tsv.gz cannot be read to its"),
    (lambda s: (s / "interactions.tsv.gz").write_bytes(b"plain"), "cannot be read to its end"),
    (lambda s: (s / "interactions.tsv.gz").unlink(), "interactions.tsv.gz not found"),
    (events_with("user\titem\torder", 0), "line 1 is 'user"),
    (events_with("u9\tA1", 1), "line 2 has 2 columns"),
    (events_with("u9\tZ9\t1", 2), "line 3 has item 'Z9'"),
    (events_with("u9\tB2\t2", 2), "line 3 has order '2'; expected order 1"),
    (events_with("u9\tB2\tx", 2), "line 3 has order 'x'"),
    (events_with("u9\tA1\t0", 6), "line 7 returns to user 'u9'"),
    (events_with("NA\tA1\t0", 6), "line 7 has the token 'NA'"),
    (events_with('u"5\tA1\t0', 6), "line 7 has the token"),
    (events_with("\tA1\t0", 6), "line 7 has"),
    (lambda s: write_gzip(s / "interactions.tsv.gz", interaction_lines()[:1]), "no interaction"),
]
ITEM_FAULTS = [
    (lambda s: truncate(s / "items.jsonl.gz"), "items.jsonl.gz cannot be read to its end"),
    (items_with("{"), "line 2 is not JSON"),
    (items_with('["B2"]'), "line 2 has no item_id"),
    (items_with('{"item_id": 5}'), "line 2 has no item_id"),
    (items_with('{"item_id": "C3"}'), "line 3 repeats item 'C3'"),
    (items_with('{"item_id": "B  2"}'), "line 2 has the token 'B  2'"),
    (lambda s: write_gzip(s / "items.jsonl.gz", []), "holds no item"),
]
IMAGE_FAULTS = [
    (labels(LABELS[:2]), "image_items.txt lists 4 items; expected 2"),
    (labels(LABELS, "other"), "expected an archive with the array 'multihot'"),
    (labels(LABELS * 2), "expected a 0/1 matrix"),
    (labels(LABELS.astype(np.float32)), "expected a 0/1 matrix"),
    (labels(LABELS * 0), "gives no label"),
    (lambda s: truncate(s / "image_labels_multihot.npz"), "multihot.npz cannot be read"),
    (lambda s: (s / "image_items.txt").write_text("F6\nA1\nC3\nF6\n"), "line 4: item 'F6' already"),
    (lambda s: (s / "image_items.txt").write_text("F6\nA1\nC3\nZ9\n"), "line 4 is 'Z9'"),
    (lambda s: (s / "image_items.txt").unlink(), "image_items.txt cannot be read"),
]


@pytest.mark.parametrize(("damage", "message"), INTERACTIONS_FAULTS + ITEM_FAULTS + IMAGE_FAULTS)
def test_faults_are_named_and_leave_the_old_set(source, tmp_path, damage, message):
    root = tmp_path / "dataset"
    prepare_from_source("Tiny", source, root)
    before = {path.name: path.read_bytes() for path in (root / "Tiny").iterdir()}
    damage(source)
    with pytest.raises(UserError, match=message):
        prepare_from_source("Tiny", source, root, force=True)
    assert sorted(os.listdir(root)) == ["Tiny"]
    assert {path.name: path.read_bytes() for path in (root / "Tiny").iterdir()} == before


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.ones((5, 2)), "has 5 rows; expected 6"),
        (np.array([[1, 1]] * 4 + [[1, np.nan]] * 2), "row 4 holds a NaN .* line 5"),
        (np.ones((6, 2), dtype=int), "expected a float matrix"),
        (np.ones(6), "expected a float matrix"),
        (np.full((6, 2), 1e9), "exceeds the range of float16"),
        (np.array([[object()]]), "cannot be read"),
    ],
)
def test_bad_precomputed_text(source, tmp_path, matrix, message):
    np.save(source / "text_minilm.npy", matrix)
    with pytest.raises(UserError, match=message):
        prepare_from_source("Tiny", source, tmp_path / "d", text_encoder="precomputed")
    assert os.listdir(tmp_path / "d") == []


def test_precomputed_needs_exactly_one_file(source, tmp_path):
    np.save(source / "text_other.npy", np.ones((6, 2)))
    with pytest.raises(UserError, match="has 2 files text_"):
        prepare_from_source("Tiny", source, tmp_path, text_encoder="precomputed")


@pytest.mark.parametrize(("place", "named"), [("f", "f"), ("f/deeper", "f"), (".", "Tiny")])
@pytest.mark.parametrize("force", [False, True])
def test_a_file_in_place_of_a_folder(source, tmp_path, place, named, force):
    (tmp_path / named).write_text("mine")
    with pytest.raises(UserError, match=f"{named} is a file; expected a folder.*--data_path"):
        prepare_from_source("Tiny", source, tmp_path / place, force=force)
    late = rebuilding(Target(tmp_path / named / "Tiny", "Tiny"))  # as if it had appeared meanwhile
    with pytest.raises(UserError, match="cannot be written"), late:
        pass
    assert (tmp_path / named).read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([named, source.name])


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "a b"])
def test_bad_name(source, tmp_path, name):
    with pytest.raises(UserError, match="Data set name"):
        prepare_from_source(name, source, tmp_path)


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (ITEMS[0], "Red & gold lamp. Lux"),
        (ITEMS[1], "blue kettle. Home, Kitchen, Tea"),
        (ITEMS[3], ""),
        (ITEMS[5], "lamp. gold lamp size < 5"),
        ({"title": "a &lt;br&gt; b", "brand": None}, "a b"),
        ({"description": "x " * MAX_CHARACTERS}, ("x " * MAX_CHARACTERS)[: MAX_CHARACTERS - 1]),
    ],
)
def test_item_text(item, text):
    assert item_text(item) == text


def test_tfidf_puts_like_texts_together():
    texts = ["red silk scarf", "red silk shawl", "steel water kettle", "steel kettle"] * 3
    vectors = encode_texts(texts, dim=4).astype(float)
    cosine = vectors @ vectors.T
    assert vectors.shape == (12, 4)
    assert cosine[0, 1] > 0.3 > cosine[0, 2] and cosine[2, 3] > 0.3


def test_labels_that_many_items_have_weigh_less():
    counts = np.array([[1, 1, 0], [1, 1, 0], [1, 0, 1], [1, 0, 0]], dtype=np.uint8)
    vectors = encode_labels(counts).astype(float)
    assert vectors[0] @ vectors[1] > 0.99
    assert vectors[0] @ vectors[2] < 0.5


@pytest.mark.parametrize("texts", [["", ""], ["?", "!"]])
def test_no_words(texts):
    with pytest.raises(UserError, match="any text|no words"):
        encode_texts(texts)


def test_sentence_encoder_absent(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(UserError, match=r"pip install '.*\[text\]'"):
        encode_texts(["a"], "some-model")


class FakeSentenceTransformer:
    """Stands in for the optional dependency: the vector of a text is its length."""

    def __init__(self, name, local_files_only=False):
        if name == "absent":
            raise OSError("no such model")

    def encode(self, texts, **_):
        return np.array([[len(text), 1.0] for text in texts])


def test_sentence_encoder(monkeypatch):
    module = types.SimpleNamespace(SentenceTransformer=FakeSentenceTransformer)
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    vectors = encode_texts(["a", "bcd"], "some-model")
    assert vectors.dtype == np.float16 and vectors.tolist() == [[1, 1], [3, 1]]
    with pytest.raises(UserError, match="'absent' cannot be loaded"):
        encode_texts(["a"], "absent")


def test_command_line(source, tmp_path, capsys):
    arguments = ["prepare", "Beauty", "--source", str(source), "--data_path", str(tmp_path)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "22,363" in printed and "8.88" in printed  # the paper's row, for a name it has
    assert (tmp_path / "Beauty" / "Beauty.inter").is_file()
    assert main(arguments) == 2 and "--force" in capsys.readouterr().err
    assert main([*arguments, "--force"]) == 0


AMAZON = Path(
    os.environ.get(
        "BBQREC_AMAZON_DIR", Path(__file__).resolve().parents[2].parent / "shared" / "amazon"
    )
)


@pytest.mark.slow
@pytest.mark.skipif(
    not (AMAZON / "Beauty").is_dir(),
    reason="the Amazon source files are not here; set BBQREC_AMAZON_DIR to their folder",
)
def test_beauty_has_the_counts_of_table_1(tmp_path):
    report = prepare_from_source("Beauty", AMAZON / "Beauty", tmp_path, text_encoder="precomputed")
    assert (report.users, report.items, report.interactions) == (22363, 12101, 198502)
    assert report.with_title == 12094
    assert round(report.average_length, 2) == 8.88
    lines = (tmp_path / "Beauty" / "Beauty.inter").read_text().splitlines()
    assert len(lines) == 1 + 198502
