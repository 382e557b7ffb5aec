"""McAuley's files become a prepared data set, and this a trained model."""

from __future__ import annotations

import errno
import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest
import yaml

from recbole_bbqrec.cli import prepare as prepare_cli
from recbole_bbqrec.cli.main import main
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.prepare import atomic_files as prepared
from recbole_bbqrec.prepare.mcauley import build as module
from recbole_bbqrec.prepare.mcauley.build import prepare_from_raw
from recbole_bbqrec.prepare.mcauley.download import DownloadError
from recbole_bbqrec.prepare.mcauley.files import CATEGORIES, MIRRORS, raw_files
from recbole_bbqrec.prepare.table1 import PAPER_TABLE1, PreparedReport, explanations
from tests.support.raw import asin, image_record, metadata, write_metadata, write_raw, write_reviews


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pristine")
    return folder, write_raw(folder)


@pytest.fixture
def raw(pristine, tmp_path):
    """A copy of the raw files (by hard link; tests replace them, never write into them)."""
    folder = tmp_path / "raw"
    folder.mkdir()
    for path in pristine[0].iterdir():
        os.link(path, folder / path.name)
    return folder


def replace(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def prepare(raw, root, **options):
    return prepare_from_raw("Beauty", root, raw, **{"text_encoder": "tfidf", **options})


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_prepared_files(raw, pristine, tmp_path):
    report = prepare(raw, tmp_path / "data")
    folder = tmp_path / "data" / "Beauty"
    reviews = pristine[1]
    lines = (folder / "Beauty.inter").read_text().splitlines()
    assert lines[0] == "user_id:token\titem_id:token\ttimestamp:float\tunix_time:float"
    rows = [line.split("\t") for line in lines[1:]]
    seen: dict[str, int] = {}
    for user, _, order, _ in rows:
        assert int(order) == seen.get(user, 0)
        seen[user] = int(order) + 1
    assert sorted((u, i, int(t)) for u, i, _, t in rows) == sorted(
        (r["reviewerID"], r["asin"], r["unixReviewTime"]) for r in reviews
    )
    assert list(seen) == list(dict.fromkeys(r["reviewerID"] for r in reviews))

    texts = (folder / "Beauty.text.items.txt").read_text().split()
    assert sorted(texts) == [asin(i) for i in range(200) if i not in (3, 4)]
    images = (folder / "Beauty.image.items.txt").read_text().split()
    assert sorted(images) == [asin(i) for i in range(200) if i not in (5, 6)]
    matrix = np.load(folder / "Beauty.image.npy", allow_pickle=False)
    assert matrix.shape == (198, 4096) and matrix.dtype == np.float16
    raw_records = (raw / "image_features_Beauty.b").read_bytes()
    for item in (asin(0), asin(150)):
        start = raw_records.index(item.encode())
        vector = np.frombuffer(raw_records[start + 10 : start + 16394], dtype="<f4")
        np.testing.assert_array_equal(matrix[images.index(item)], vector.astype(np.float16))

    described = yaml.safe_load((folder / "Beauty.features.yaml").read_text())
    assert described["text"]["recipe"].startswith("title, description joined by '. '")
    assert described["text"]["source"] == "meta_Beauty.json.gz"
    assert len(described["text"]["texts_sha256"]) == len(described["image"]["sha256"]) == 64
    assert described["image"]["dimension"] == 4096 and described["image"]["items"] == 198
    titles = dict(
        line.split("\t") for line in (folder / "Beauty.titles.tsv").read_text().splitlines()[1:]
    )
    assert titles[asin(12)] == "theme2 thing & more" and titles[asin(4)] == ""

    counts = (report.users, report.items, report.interactions, report.with_image)
    assert counts == (240, 200, len(reviews), 198)
    assert (report.with_text, report.with_title) == (198, 198)
    notes = "\n".join(report.notes)
    assert "Every user and item has at least 5 reviews" in notes
    assert "1 items have none, 2 no title or description; 0 of 219 lines repeat one" in notes
    assert "2 items have no record, 0 an all-zero one; 10 records of other items" in notes
    assert sorted(os.listdir(tmp_path / "data")) == ["Beauty"]


def test_same_files_same_bytes(raw, tmp_path):
    for root in ("a", "b"):
        prepare(raw, tmp_path / root)
    assert files_of(tmp_path / "a" / "Beauty") == files_of(tmp_path / "b" / "Beauty")


def test_not_five_core_is_said(raw, pristine, tmp_path):
    kept = [r for r in pristine[1] if r["asin"] != asin(7) or r["reviewerID"] < "A0050"]
    (raw / "reviews_Beauty_5.json.gz").unlink()
    write_reviews(raw / "reviews_Beauty_5.json.gz", kept)
    report = prepare(raw, tmp_path / "data")
    assert "Not a 5-core: 0 users and 1 items have fewer than 5 reviews" in report.table()


def test_without_images_their_file_is_not_asked_for(raw, tmp_path):
    (raw / "image_features_Beauty.b").unlink()
    report = prepare(raw, tmp_path / "data", images=False)
    assert report.with_image == 0
    assert not (tmp_path / "data" / "Beauty" / "Beauty.image.npy").exists()
    assert "* with image: 12,009 fewer; no image features were prepared." in report.table()


def test_precomputed_text(raw, tmp_path):
    tokens = [asin(2), asin(900), asin(0)]
    (raw / "text_mine.items.txt").write_text("".join(token + "\n" for token in tokens))
    np.save(raw / "text_mine.npy", np.array([[1, 2], [3, 4], [5, 6]], dtype=np.float32))
    report = prepare(raw, tmp_path / "data", text_encoder="precomputed", images=False)
    folder = tmp_path / "data" / "Beauty"
    assert (folder / "Beauty.text.items.txt").read_text().split() == [asin(2), asin(0)]
    assert np.load(folder / "Beauty.text.npy").tolist() == [[1, 2], [5, 6]]
    assert report.with_text == 2
    np.save(raw / "text_mine.npy", np.ones((4, 2)))
    with pytest.raises(UserError, match="expected 3, one for each line of text_mine.items.txt"):
        prepare(raw, tmp_path / "data", text_encoder="precomputed", images=False, force=True)
    (raw / "text_mine.items.txt").write_text(asin(900) + "\n")
    np.save(raw / "text_mine.npy", np.ones((1, 2)))
    with pytest.raises(UserError, match="names none of the 200 items"):
        prepare(raw, tmp_path / "data", text_encoder="precomputed", images=False, force=True)


def cut(name, size):
    return lambda raw: replace(raw / name, (raw / name).read_bytes()[:-size])


def other_metadata(raw):
    (raw / "meta_Beauty.json.gz").unlink()
    write_metadata(raw / "meta_Beauty.json.gz", [metadata("OTHER00000", "x", None)])


def other_images(raw):
    vector = np.ones(4096)
    replace(raw / "image_features_Beauty.b", image_record("OTHER00000", vector))


FAULTS = [
    (cut("reviews_Beauty_5.json.gz", 12), "reviews_Beauty_5.json.gz cannot be read to its end"),
    (cut("meta_Beauty.json.gz", 12), "meta_Beauty.json.gz cannot be read to its end"),
    (cut("image_features_Beauty.b", 5), "record 208 ends after 16,389 bytes"),
    (other_metadata, "describes none of the 200 items"),
    (other_images, "has no vector for any of the 200 items"),
    (
        lambda raw: replace(raw / "reviews_Beauty_5.json.gz", gzip.compress(b"{'asin': 1}\n")),
        "reviews_Beauty_5.json.gz, line 1 has reviewerID None",
    ),
]


@pytest.mark.parametrize(("damage", "message"), FAULTS)
def test_faults_are_named_and_leave_the_old_set(raw, tmp_path, damage, message):
    root = tmp_path / "data"
    prepare(raw, root)
    before = files_of(root / "Beauty")
    damage(raw)
    with pytest.raises(UserError, match=message):
        prepare(raw, root, force=True)
    assert sorted(os.listdir(root)) == ["Beauty"]
    assert files_of(root / "Beauty") == before


@pytest.mark.slow
@pytest.mark.parametrize("place", ["describe_matrix", "write_interactions", "write_description"])
@pytest.mark.parametrize("exists", [True, False])
def test_full_disk_leaves_what_was_there(raw, tmp_path, monkeypatch, place, exists):
    root = tmp_path / "data"
    if exists:
        prepare(raw, root)
    before = files_of(root / "Beauty") if exists else {}

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(prepared, place, full)
    with pytest.raises(UserError, match="cannot be written: No space left on device; nothing was"):
        prepare(raw, root, force=True)
    assert os.listdir(root) == (["Beauty"] if exists else [])
    assert (files_of(root / "Beauty") if exists else {}) == before


def test_interruption_leaves_what_was_there(raw, tmp_path, monkeypatch):
    prepare(raw, tmp_path / "data")
    before = files_of(tmp_path / "data" / "Beauty")

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_image_features", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare(raw, tmp_path / "data", force=True)
    assert os.listdir(tmp_path / "data") == ["Beauty"]
    assert files_of(tmp_path / "data" / "Beauty") == before


def test_absent_files_are_downloaded(raw, pristine, tmp_path, monkeypatch, capsys):
    (raw / "meta_Beauty.json.gz").unlink()
    (raw / "image_features_Beauty.b").unlink()
    fetched = []

    def fetch(urls, target, check):
        fetched.append(urls)
        os.link(pristine[0] / target.name, target)
        assert check(target) is None

    monkeypatch.setattr(module, "download", fetch)
    prepare(raw, tmp_path / "data")
    snap = "https://snap.stanford.edu/data/amazon/productGraph"
    assert [urls[0] for urls in fetched] == [
        f"{snap}/categoryFiles/meta_Beauty.json.gz",
        f"{snap}/image_features/categoryFiles/image_features_Beauty.b",
    ]
    assert "about 4 GB" in capsys.readouterr().out


def test_without_network_the_message_says_which_files_go_where(tmp_path, monkeypatch):
    def fail(urls, *_):
        raise DownloadError(f"{urls[0]}: no network")

    monkeypatch.setattr(module, "download", fail)
    with pytest.raises(UserError) as caught:
        prepare(tmp_path / "raw", tmp_path / "data")
    message = str(caught.value)
    for file in ("reviews_Beauty_5.json.gz", "meta_Beauty.json.gz", "image_features_Beauty.b"):
        assert f"{file}, about" in message
    assert str(tmp_path / "raw") in message and "--no_images" in message
    assert "https://snap.stanford.edu/" in message


def test_broken_records_are_no_complete_download(tmp_path):
    path = tmp_path / "x.b"
    path.write_bytes(b"x" * 16395)
    assert "multiple" in (module._record_fault(path) or "")
    path.write_bytes(b"x" * 16394)
    assert module._record_fault(path) is None


def test_every_category_has_files_and_addresses():
    assert set(CATEGORIES) == set(PAPER_TABLE1)
    for name, category in CATEGORIES.items():
        files = raw_files(name)
        assert files.reviews.name == f"reviews_{category}_5.json.gz"
        assert len(files.meta.urls()) == len(MIRRORS)
        assert all(url.endswith(files.images.name) for url in files.images.urls())
        assert 0 < len(files.images.urls()) < len(MIRRORS)


def report_with(name="Beauty", **changes):
    users, items, interactions, images, texts, _ = PAPER_TABLE1[name]
    counts = {"users": users, "items": items, "interactions": interactions, "with_image": images,
              "with_text": texts, "with_title": texts}  # fmt: skip
    return PreparedReport(
        name=name, directory=Path("x"), text_encoder="e",
        **{"text_fields": ("title", "description"), "image_encoder": "CNN", "image_features": True,
           **counts, **changes},
    )  # fmt: skip


@pytest.mark.parametrize("name", ["Beauty", "Sports", "Clothing"])
def test_the_papers_own_counts_differ_in_nothing(name):
    report = report_with(name)
    assert explanations(report) == {}
    assert "Every count is the paper's." in report.table() and "*" not in report.table()


def test_toys_interactions_are_explained():
    found = explanations(report_with("Toys", interactions=167597))
    assert list(found) == ["interactions"]
    assert "2,000 fewer" in found["interactions"] and "8.63" in found["interactions"]
    # With the paper's own count its average length would be another one.
    assert "avg length" in explanations(report_with("Toys"))


@pytest.mark.parametrize(
    ("changes", "column", "words"),
    [
        ({"users": 22360}, "users", "3 fewer; no reason is known"),
        ({"with_image": 0, "image_encoder": ""}, "with image", "no image features"),
        ({"with_image": 17, "image_features": False}, "with image", "vectors are made of CNN"),
        ({"with_image": 17}, "with image", "another number of these items"),
        (
            {"with_text": 12101, "text_fields": ("title", "brand")},
            "with text",
            "7 more; counted is any of title, brand; 12,094 items have a title or description, as",
        ),
        ({"with_text": 9, "with_title": 9}, "with text", "9 items have a title or description."),
    ],
)
def test_differences_are_marked_and_explained(changes, column, words):
    report = report_with(**changes)
    found = explanations(report)
    assert column in found and words in found[column]
    table = report.table().splitlines()
    place = table[1].index(column) + len(column)
    assert table[2][place] == "*" and f"* {column}: {found[column]}" in table


def test_own_data_set_has_no_paper_row():
    report = PreparedReport("Mine", Path("x"), 2, 3, 5, 0, 1, 1, "e")
    assert explanations(report) == {} and "paper" not in report.table()


def fails(arguments, capsys, *words):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    for word in words:
        assert word in error


def test_command_line(raw, rundir, capsys):
    fails(["prepare", "Other"], capsys, "No source is given for 'Other'", "--source or --raw")
    fails(["prepare", "Other", "--raw"], capsys, "not for 'Other'")
    fails(["prepare", "Beauty", "--raw", "--source=x"], capsys, "--source and --raw are given")
    arguments = ["prepare", "Beauty", "--raw", str(raw), "--text_encoder", "tfidf"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "22,363" in printed and "--modalities=[text,image]" in printed
    assert (rundir / "dataset" / "Beauty" / "Beauty.inter").is_file()
    fails(arguments, capsys, "already exists; use --force")


@pytest.mark.parametrize(
    ("name", "told"), [("Beauty", "[text,image] (without"), ("Sports", "alone with --mod")]
)
def test_how_to_use_both_signals_follows_the_yaml(name, told):
    assert told in prepare_cli._how_to_use_both(name)


def test_mirror_of_ones_own(rundir, capsys, monkeypatch):
    seen = []

    def fail(urls, *_):
        seen.extend(urls)
        raise DownloadError("gone")

    monkeypatch.setattr(module, "download", fail)
    arguments = ["prepare", "Toys", "--text_encoder", "tfidf", "--mirror", "http://here/amazon/"]
    fails(arguments, capsys, "Cannot download reviews_Toys_and_Games_5.json.gz")
    fails([*arguments, "--raw", "my files"], capsys, "prepare Toys --raw 'my files'`")
    assert seen == ["http://here/amazon/categoryFiles/reviews_Toys_and_Games_5.json.gz"] * 2


def test_interrupted_preparation_says_how_to_go_on(rundir, capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "download", interrupt)
    assert main(["prepare", "Toys", "--text_encoder", "tfidf"]) == 130
    assert "goes on with what was downloaded" in capsys.readouterr().err


@pytest.mark.slow
def test_absent_data_set_is_explained(rundir, capsys):
    fails(
        ["run", "--model=BBQRec", "--dataset=Toys"], capsys,
        "Toys.inter", "`python -m recbole_bbqrec prepare Toys`", "--prepare",
    )  # fmt: skip
    fails(["run", "--model=BBQRec", "--dataset=Own"], capsys, "prepare Own --interactions=FILE")
    there = "--data_path=my data"
    for name in ("Own --interactions=FILE", "Toys"):
        told = f"prepare {name} --data_path 'my data'"
        fails(["run", "--model=BBQRec", f"--dataset={name.split()[0]}", there], capsys, told)
    fails(["run", "--model=BBQRec", "--dataset=Own", "--prepare"], capsys, "cannot be downloaded")
    fails(["run", "--model=BBQRec", "--dataset=Own", "--prepare=3"], capsys, "True or False")


@pytest.mark.parametrize("modalities", ["text", "text,image"])
def test_run_prepares_what_it_needs(rundir, capsys, monkeypatch, modalities):
    """``--prepare`` hands over to the preparation, with images only where the run reads them."""
    seen = []

    def prepare(name, root, **options):
        seen.append((name, root, options))
        raise UserError("stop here")

    monkeypatch.setattr(module, "prepare_from_raw", prepare)
    fails(
        ["run", "--model=BBQRec", "--dataset=Beauty", "--prepare", f"--modalities=[{modalities}]"],
        capsys, "stop here",
    )  # fmt: skip
    assert seen == [("Beauty", Path("dataset"), {"images": "image" in modalities, "force": False})]


@pytest.mark.slow
def test_raw_files_to_a_trained_model(raw, rundir, tiny, capsys, monkeypatch):
    """The whole way: `run --prepare` on raw files that are in their place already."""
    data = rundir / "data"
    data.mkdir()
    raw.rename(data / "amazon-2014")
    tiny.update(data_path=str(data), tokenizer_epochs=8, epochs=10, eval_step=5, codebook_size=16)
    tiny.update(tokenizer_batch_size=64, train_batch_size=128, learning_rate=0.005, state="INFO")
    original = module.prepare_from_raw
    # Without sentence-T5, which a test cannot download.
    monkeypatch.setattr(
        module,
        "prepare_from_raw",
        lambda *args, **options: original(*args, **{"text_encoder": "tfidf", **options}),
    )
    arguments = ["run", "--model=BBQRec", "--dataset=Beauty", "--modalities=[text,image]"]
    arguments += [f"--{key}={value}" for key, value in tiny.items()]
    assert main([*arguments, "--prepare"]) == 0
    (path,) = (rundir / "saved").glob("BBQRec-*/result.json")
    result = json.loads(path.read_text())
    described = yaml.safe_load((data / "Beauty" / "Beauty.features.yaml").read_text())
    for modality in ("text", "image"):
        for key in ("encoder", "recipe", "sha256", "dimension"):
            assert result["features"][modality][key] == described[modality][key]
    # Ten of 200 items by chance: .05, with a standard error of .014 over 240 users. What is
    # bought depends on themes that text and image show, if their rows are aligned.
    assert result["test_result"]["recall@10"] > 0.08
    (log,) = (rundir / "log" / "BBQRec").glob("*.log")
    fingerprint = result["features"]["image"]["fingerprint"]
    assert f"4096 dimensions, {fingerprint}" in log.read_text()
