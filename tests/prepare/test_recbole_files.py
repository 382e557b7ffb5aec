"""ml-100k from RecBole's own files, and text of the columns of a user's `.item` file."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from recbole_bbqrec.cli.main import main
from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.data.titles import read_titles
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.prepare import recbole_files as module
from recbole_bbqrec.prepare.on_demand import make_at_once
from recbole_bbqrec.prepare.recbole_files import add_item_text, make_ml_100k
from recbole_bbqrec.prepare.text import encode_texts
from recbole_bbqrec.quick_start import load_run, run
from tests.support import contract

INSTALLED = module._INSTALLED
SHOP_ITEMS = """\
item_id:token\ttitle:token_seq\tbrand:token\tprice:float
a\tRed lamp\tLux\t3.5
b\tRed lamp, large\tLux\t4
c\tGreen kettle\tTea & Co\t12
d\t\t\t
e\tKettle\tTea & Co\t9
"""


@pytest.fixture
def shop(tmp_path):
    """A folder as a user of RecBole has it: interactions and items, no vectors."""
    folder = tmp_path / "dataset" / "Shop"
    folder.mkdir(parents=True)
    (folder / "Shop.item").write_text(SHOP_ITEMS)
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    lines += [f"u{u}\t{i}\t{t}" for u in range(8) for t, i in enumerate("abced")]
    (folder / "Shop.inter").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def cut(tmp_path, monkeypatch):
    """RecBole's files of ml-100k with some users and their most frequent films."""
    folder = tmp_path / "installed" / "ml-100k"
    folder.mkdir(parents=True)
    header, *rows = (INSTALLED / "ml-100k.inter").read_text().splitlines()
    events = [row for row in rows if int(row.split("\t")[0]) <= 60]
    films = [row.split("\t")[1] for row in events]
    kept = set(sorted(set(films), key=lambda film: (-films.count(film), film))[:80])
    events = [row for row in events if row.split("\t")[1] in kept]
    (folder / "ml-100k.inter").write_text("\n".join([header, *events]) + "\n")
    for kind in ("item", "user"):
        shutil.copyfile(INSTALLED / f"ml-100k.{kind}", folder / f"ml-100k.{kind}")
    monkeypatch.setattr(module, "_INSTALLED", folder)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_ml_100k_is_made_of_recboles_files(tmp_path):
    before = files(INSTALLED)
    folder = make_ml_100k(tmp_path)
    assert files(INSTALLED) == before and folder == tmp_path / "ml-100k"
    assert (folder / "ml-100k.inter").read_bytes() == before["ml-100k.inter"]
    described = yaml.safe_load((folder / "ml-100k.features.yaml").read_text())["text"]
    assert described["items"] == 1682 and described["text_columns"] == ["movie_title", "class"]
    assert read_titles(folder / "ml-100k.titles.tsv")["1"] == "Toy Story"
    tokens = (folder / "ml-100k.text.items.txt").read_text().split()
    vectors = np.load(folder / "ml-100k.text.npy").astype(float)
    like = vectors @ vectors[tokens.index("1")]
    # Aladdin and the King of Thieves, an animation for children, is nearer than Seven, a thriller
    assert like[tokens.index("422")] > like[tokens.index("11")] + 0.1


@pytest.mark.slow
def test_a_run_on_ml_100k_needs_nothing_before(rundir, cut):
    installed = files(cut)
    result = run("ItemNeighbours", "ml-100k", overrides={"state": "WARNING"})
    assert files(cut) == installed
    assert result["users"]["tested"] == result["users"]["all"] > 40
    assert "movie_title, class" in result["features"]["text"]["recipe"]
    again = load_run(result["files"]["model"])
    shown = again.recommend(users=["1"], k=3)
    titles = read_titles(Path("dataset/ml-100k/ml-100k.titles.tsv"))
    assert shown["title"].tolist() == [titles[film] for film in shown["item"]]
    own = Path(result["files"]["model"]).with_suffix("") / "data/ml-100k/ml-100k.titles.tsv"
    own.unlink()  # the run reads its own copy
    assert list(again.recommend(users=["1"], k=3)) == ["user", "rank", "item", "score"]


@pytest.mark.slow
@pytest.mark.parametrize("model", contract.NAMES)
def test_every_model_trains_on_ml_100k(rundir, cut, model):
    """Prepared by the first run, the same for all; nothing that a run wrote is made anew."""
    tiny = {**contract.options(model, Path("dataset")), "epochs": 1}
    result = run(model, "ml-100k", overrides=tiny)
    assert result["test_result"]["recall@10"] > 0 and result["users"]["tested"] > 40
    made = files(Path("dataset/ml-100k"))
    run("ItemNeighbours", "ml-100k", overrides={"state": "WARNING"})
    assert files(Path("dataset/ml-100k")) == made


@pytest.mark.slow
def test_prepare_makes_ml_100k_and_replaces_it_only_if_told(tmp_path, cut, capsys):
    command = ["prepare", "ml-100k", f"--data_path={tmp_path / 'data'}"]
    assert main(command) == 0 and "RecBole installs" in capsys.readouterr().out
    assert main(command) == 2 and "--force" in capsys.readouterr().err
    assert main([*command, "--force"]) == 0


def test_an_installation_without_the_files(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_INSTALLED", tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"ml-100k.inter is missing.*Install it again"):
        make_ml_100k(tmp_path)
    assert not (tmp_path / "ml-100k").exists()


def test_text_of_an_item_file_is_that_of_its_columns(shop):
    before = files(shop)
    assert add_item_text(shop, "Shop", ["title", "brand"])
    after = files(shop)
    assert {name: after[name] for name in before} == before
    tokens = after["Shop.text.items.txt"].decode().split()
    assert tokens == ["a", "b", "c", "e"]  # d has no text
    texts = ["Red lamp. Lux", "Red lamp, large. Lux", "Green kettle. Tea & Co", "Kettle. Tea & Co"]
    np.testing.assert_array_equal(np.load(shop / "Shop.text.npy"), encode_texts(texts))
    assert read_titles(shop / "Shop.titles.tsv")["c"] == "Green kettle"
    assert not add_item_text(shop, "Shop", ["title", "brand"])  # they are there
    assert files(shop) == after


def test_other_columns_do_not_replace_vectors(shop):
    add_item_text(shop, "Shop", ["title"])
    with pytest.raises(UserError, match=r"`text_columns` is \['brand'\].*made of \['title'\]"):
        add_item_text(shop, "Shop", ["brand"])


def test_files_of_the_user_stay(shop):
    (shop / "Shop.titles.tsv").write_text("item_id\ttitle\na\tMine\n")
    np.save(shop / "Shop.image.npy", np.ones((1, 2), np.float32))
    (shop / "Shop.features.yaml").write_text("image: {encoder: mine}\n")
    add_item_text(shop, "Shop", ["title"])
    assert read_titles(shop / "Shop.titles.tsv") == {"a": "Mine"}
    described = yaml.safe_load((shop / "Shop.features.yaml").read_text())
    assert described["image"] == {"encoder": "mine"} and "text" in described
    np.save(shop / "Shop.text.npy", np.ones((1, 2), np.float32))
    (shop / "Shop.features.yaml").unlink()
    before = files(shop)
    assert not add_item_text(shop, "Shop", ["brand"]) and files(shop) == before


def test_an_interruption_leaves_no_vectors_without_their_items(shop, monkeypatch):
    def stop(source, target):
        raise KeyboardInterrupt

    before = files(shop)
    monkeypatch.setattr(module.os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        add_item_text(shop, "Shop", ["title"])
    monkeypatch.undo()
    left = files(shop)
    left.pop("Shop.features.yaml", None)
    assert left == before
    assert add_item_text(shop, "Shop", ["title"])


@pytest.mark.parametrize(
    ("columns", "content", "message"),
    [
        (["titel"], SHOP_ITEMS, "has `titel`; .*Shop.item has item_id, title.*`title`"),
        (["title"], None, "Shop.item is not there"),
        (["title"], SHOP_ITEMS.replace("lamp", "l\udcffmp"), "Shop.item cannot be read"),
    ],
)
def test_item_files_that_cannot_serve(shop, columns, content, message):
    if content is None:
        (shop / "Shop.item").unlink()
    else:
        (shop / "Shop.item").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=message):
        add_item_text(shop, "Shop", columns)


def test_a_matrix_without_items_or_the_reverse_is_not_completed(shop):
    (shop / "Shop.text.items.txt").write_text("a\n")
    with pytest.raises(UserError, match=r"items.txt is there without Shop.text.npy"):
        add_item_text(shop, "Shop", ["title"])


def test_a_run_makes_text_only_if_it_reads_text(shop, rundir):
    common = {"data_path": str(shop.parent), "text_columns": ["title"], "state": "WARNING"}
    make_at_once(BBQRecConfig("ItemNeighbours", "Shop", overrides={**common, "modalities": []}))
    assert not (shop / "Shop.text.npy").exists()
    common.update(modalities=["text"], topk=[1, 2], valid_metric="NDCG@2")
    result = run("ItemNeighbours", "Shop", overrides=common)
    assert "title joined" in result["features"]["text"]["recipe"]


@pytest.mark.parametrize("value", [[], "title", [1], [""]])
def test_text_columns_are_a_list_of_names(value):
    with pytest.raises(UserError, match="`text_columns` is .*a list of at least one column"):
        BBQRecConfig("BBQRec", "Shop", overrides={"text_columns": value})
