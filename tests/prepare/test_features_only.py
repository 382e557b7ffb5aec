"""Features beside a data set in RecBole's format: what is written, and that the rest stays."""

from __future__ import annotations

import numpy as np
import pytest
import yaml

from recbole_bbqrec.answers.filters import Condition, item_table, items_that
from recbole_bbqrec.cli.main import main
from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.data.dataset import MultiModalDataset
from recbole_bbqrec.data.loaders import create_dataset

ITEMS = """\
item_id:token\ttitle:token_seq\tbrand:token\tprice:float
a\tRed lamp\tLux\t3.5
b\tRed lamp, large\tLux\t4
c\tGreen kettle\tTea & Co\t12
x\tNever bought\t\t1
d\t\t\t
e\tKettle\tTea & Co\t9
"""


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A folder as a user of RecBole has it, with ratings and times."""
    folder = tmp_path / "dataset" / "Shop"
    folder.mkdir(parents=True)
    (folder / "Shop.item").write_text(ITEMS)
    lines = ["rating:float\tuser_id:token\titem_id:token\ttimestamp:float"]
    lines += [f"{t}\tu{u}\t{i}\t{1000 * t}" for u in range(8) for t, i in enumerate("abced")]
    (folder / "Shop.inter").write_text("\n".join(lines) + "\n")
    monkeypatch.chdir(tmp_path)
    return folder


def command(*words):
    return main(["prepare", "Shop", "--features_only", *words])


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def image_of(folder, tokens="edcbax"):
    np.save("image.npy", np.array([[ord(t), 1.0] for t in tokens], np.float32))
    (folder.parent / "tokens.txt").write_text("\n".join(tokens) + "\n")
    return "--features=image=image.npy,dataset/tokens.txt"


def test_only_features_are_written(shop, capsys):
    before = content(shop)
    assert command("--items=dataset/Shop/Shop.item", image_of(shop)) == 0
    output = capsys.readouterr().out
    assert "5 items with interactions" in output and "--modalities=[text,image]" in output
    after = content(shop)
    assert {name: after[name] for name in before} == before
    assert sorted(set(after) - set(before)) == [
        "Shop.features.yaml", "Shop.image.items.txt", "Shop.image.npy", "Shop.prepared.yaml",
        "Shop.text.encoder.npz", "Shop.text.items.txt", "Shop.text.npy", "Shop.titles.tsv",
    ]  # fmt: skip
    options = {"data_path": "dataset", "modalities": ["text", "image"]}
    dataset = create_dataset(BBQRecConfig("BBQRec", "Shop", overrides=options), MultiModalDataset)
    assert set(dataset.modalities) == {"text", "image"}
    image = np.load(shop / "Shop.image.npy")
    tokens = (shop / "Shop.image.items.txt").read_text().split()
    assert [chr(int(row[0])) for row in image] == tokens == list("edcba")
    assert "b\tRed lamp, large\n" in (shop / "Shop.titles.tsv").read_text()
    text = np.load(shop / "Shop.text.npy").astype(np.float64)
    rows = {t: text[n] for n, t in enumerate((shop / "Shop.text.items.txt").read_text().split())}
    assert set(rows) == set("abce")
    assert rows["a"] @ rows["b"] > rows["a"] @ rows["c"]


def test_features_are_replaced_only_if_prepare_made_them(shop, capsys):
    items = "--items=dataset/Shop/Shop.item"
    assert command(items) == 0
    assert command(items) == 2
    assert "--force" in capsys.readouterr().err
    assert command(items, "--force", "--text_columns=brand") == 0
    assert "brand" in yaml.safe_load((shop / "Shop.features.yaml").read_text())["text"]["recipe"]
    np.save(shop / "Shop.text.npy", np.ones((4, 3), np.float32))  # now the user's own
    before = content(shop)
    assert command(items, "--force") == 2
    assert "never replaced" in capsys.readouterr().err
    assert content(shop) == before
    # and no preparation takes the interactions for its own
    table = ["prepare", "Shop", "--interactions=dataset/Shop/Shop.inter", "--force"]
    assert main(table) == 2
    assert content(shop) == before


def test_columns_of_another_table_are_kept_for_conditions(shop):
    (shop.parent / "goods.csv").write_text("item_id,title,price\na,Lamp,2\nb,Tent,30\nx,No,1\n")
    assert command("--items=dataset/goods.csv") == 0
    table = item_table(shop, "Shop")
    assert items_that([Condition.parse("price < 20")], table) == {"a"}


def test_the_parts_of_split_files_are_read(shop, capsys):
    whole = (shop / "Shop.inter").read_text().splitlines()
    for number, part in enumerate(("train", "valid", "test")):
        (shop / f"Shop.{part}.inter").write_text("\n".join([whole[0], *whole[number + 1 :: 3]]))
    (shop / "Shop.inter").unlink()
    assert command("--items=dataset/Shop/Shop.item", "--title_column=title") == 0
    assert "5 items with interactions" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ([], ["--items", "--features"]),
        (["--items=dataset/Shop/Shop.item", "--interactions=dataset/Shop/Shop.inter"],
         ["--interactions", "Leave one"]),
        (["--items=dataset/Shop/Shop.item", "--item_column=sku"], ["sku", "--item_column"]),
        (["--items=absent.csv"], ["absent.csv"]),
        (["--items=prices.csv"], ["no item a text", "sku, cost", "--text_columns"]),
        (["--items=dataset/Shop/Shop.item", "--text_encoder=precomputed"], ["--features"]),
        (["--items=dataset/Shop/Shop.item", "--data_path=elsewhere"], ["Shop.inter is not"]),
    ],
)  # fmt: skip
def test_refused(shop, capsys, words, parts):
    (shop.parent.parent / "prices.csv").write_text("sku,cost\na,3\nb,4\n")
    before = content(shop)
    assert command(*words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and all(part in error for part in parts), error
    assert content(shop) == before


def test_a_matrix_is_not_written_over_itself(shop, capsys):
    image_of(shop)
    matrix = np.load("image.npy")
    np.save(shop / "Shop.image.npy", matrix)
    words = ["--features=image=dataset/Shop/Shop.image.npy,dataset/tokens.txt", "--force"]
    assert command(*words) == 2
    assert "never replaced" in capsys.readouterr().err
    assert np.array_equal(np.load(shop / "Shop.image.npy"), matrix)
