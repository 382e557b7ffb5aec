"""Photos of a folder: names, damaged files, interruption, and a real (tiny, random) ResNet."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recbole_bbqrec.cli.main import main
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.prepare.encoders.photos import Photos, open_image_encoder
from recbole_bbqrec.prepare.tables.ledger import Ledger
from recbole_bbqrec.prepare.tables.photos import write_photos

Image = pytest.importorskip("PIL.Image", reason="photos are read by Pillow")
transformers = pytest.importorskip("transformers", reason="image encoders are its models")
NAMES = ["a", "b", "c.1", "d", "e"]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    """A ResNet of a few thousand weights with its own image processor."""
    folder = tmp_path_factory.mktemp("models") / "tiny-resnet"
    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"
    )
    transformers.ResNetModel(config).save_pretrained(folder)
    transformers.ConvNextImageProcessor(size={"shortest_edge": 32}).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(tmp_path):
    """Photos of three items and of another; the one of item d is cut short."""
    rng = np.random.default_rng(0)
    path = tmp_path / "photos"
    path.mkdir()
    for name in ("a.jpg", "b.PNG", "c.1.webp", "x.jpg"):
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(path / name)
    (path / "d.jpg").write_bytes((path / "a.jpg").read_bytes()[:400])
    (path / "notes.txt").write_text("no photo")
    return path


def test_files_of_a_folder(folder, tmp_path):
    assert set(Photos.of_folder(folder).paths) == {"a", "b", "c.1", "d", "x"}
    (folder / "a.png").write_bytes(b"")
    with pytest.raises(UserError, match="both of the item a"):
        Photos.of_folder(folder)
    with pytest.raises(UserError, match="is no folder"):
        Photos.of_folder(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has no photos"):
        Photos.of_folder(tmp_path / "empty")


@pytest.mark.slow
def test_rows_are_the_vectors_of_the_items_photos(folder, model_folder, tmp_path):
    encoder, ledger = open_image_encoder(str(model_folder)), Ledger()
    catalogue = {name: code for code, name in enumerate(NAMES)}
    photos = Photos.of_folder(folder)
    entry = write_photos(
        photos, encoder, catalogue, NAMES, tmp_path / "S.image", tmp_path / "kept", ledger
    )
    rows = np.load(tmp_path / "S.image.npy")
    assert (tmp_path / "S.image.items.txt").read_text().split() == ["a", "b", "c.1"]
    assert entry["encoder"] == "tiny-resnet" and entry["dimension"] == rows.shape[1] == 16
    assert ledger.count("photos that cannot be read") == 1
    assert ledger.count("photos whose item has no interaction left") == 1
    assert ledger.count("items without a photo") == 2
    assert "d.jpg" in ledger.table() and "x.jpg" in ledger.table()

    model = transformers.AutoModel.from_pretrained(model_folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(model_folder)
    with torch.no_grad():
        pixels = processor(images=[Image.open(photos.paths["b"])], return_tensors="pt")
        expected = model(**pixels).pooler_output.flatten()
    np.testing.assert_allclose(rows[1], expected / expected.norm(), atol=1e-3)


def test_encoded_chunks_outlive_an_interruption(folder, model_folder, tmp_path, monkeypatch):
    encoder = open_image_encoder(str(model_folder))
    monkeypatch.setattr("recbole_bbqrec.prepare.encoders.photos._CHUNK", 1)
    paths = [folder / name for name in ("a.jpg", "b.PNG", "c.1.webp")]
    whole = encoder.encode(paths)
    vectors, calls = encoder._vectors, []

    def interrupted(photos):
        calls.append(len(photos))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return vectors(photos)

    monkeypatch.setattr(encoder, "_vectors", interrupted)
    with pytest.raises(KeyboardInterrupt):
        encoder.encode(paths, tmp_path / "kept")
    again = encoder.encode(paths, tmp_path / "kept")
    assert len(calls) == 4 and np.array_equal(again, whole)
    assert not (tmp_path / "kept").exists()


def test_errors(folder, tmp_path):
    with pytest.raises(UserError, match="cannot be loaded"):
        open_image_encoder(str(tmp_path))
    photos, encoder = Photos.of_folder(folder), None
    with pytest.raises(UserError, match="none of its 5 photos has the name of an item"):
        write_photos(photos, encoder, {"z": 0}, ["z"], tmp_path, tmp_path, Ledger())


@pytest.mark.slow
def test_the_command(folder, model_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = [f"u{user},{item},{user * 10 + n}" for user in range(6) for n, item in enumerate(NAMES)]
    (tmp_path / "orders.csv").write_text("\n".join(["user_id,item_id,timestamp", *rows]) + "\n")
    words = ["prepare", "Shop", "--interactions=orders.csv", f"--image_encoder={model_folder}"]
    assert main([*words, f"--images={folder}"]) == 0
    output = capsys.readouterr().out
    assert "image: 3 items (60.0 %), 16 dimensions, tiny-resnet" in output
    assert "--modalities=[image]" in output and "1  photos that cannot be read" in output
    assert (tmp_path / "dataset/Shop/Shop.image.npy").is_file()
    again = [*words, f"--images={folder}", "--features=image=x.npy,x.txt", "--force"]
    assert main(again) == 2
    assert "--features with --images names a modality twice" in capsys.readouterr().err
    assert main([*words, f"--images={folder}", "--strict", "--force"]) == 2
    assert "photos that cannot be read" in capsys.readouterr().err
    assert main(["prepare", "Beauty", f"--images={folder}"]) == 2
    assert "--images is for --interactions" in capsys.readouterr().err
