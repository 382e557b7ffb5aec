"""Reading new items: vectors, texts encoded by the stored recipe, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recbole_bbqrec.answers.filters import Condition, items_that
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.prepare.item_table import write_item_table
from recbole_bbqrec.prepare.tables.features import FeatureFile
from recbole_bbqrec.prepare.tables.items import ItemOptions
from recbole_bbqrec.prepare.text import TextRecipe, fit_tfidf
from recbole_bbqrec.upkeep.extended_data import write_extended
from recbole_bbqrec.upkeep.new_items import NewItems, Present, read_new_items

TEXTS = ["red lamp", "blue lamp", "green tent", "tent of red cloth", "kettle", "blue kettle"]


def present(folder: Path, width: int) -> Present:
    return Present(folder, "Shop", frozenset({"a", "b"}), {"text": width})


def vectors(folder: Path, tokens: list[str], rows: np.ndarray) -> FeatureFile:
    np.save(folder / "v.npy", rows)
    (folder / "v.txt").write_text("".join(f"{token}\n" for token in tokens))
    return FeatureFile("text", folder / "v.npy", folder / "v.txt")


def test_the_stored_recipe_encodes_the_same_texts_alike(tmp_path):
    expected, recipe = fit_tfidf(TEXTS, dim=4)
    replace(recipe, columns=("title",)).save(tmp_path / "r.npz")
    again = TextRecipe.load(tmp_path / "r.npz")
    assert again.columns == ("title",)
    assert np.abs(again.encode(TEXTS) - expected).max() < 5e-3  # stored in float16
    assert not again.encode(["unknown words"]).any()


def test_texts_of_new_items_are_encoded_and_known_items_left_out(tmp_path):
    expected, recipe = fit_tfidf(TEXTS, dim=4)
    replace(recipe, columns=("title",)).save(tmp_path / "Shop.text.encoder.npz")
    table = "item_id,title,category\na,old,x\nc,red lamp,tent\nd,blue kettle,\n"
    (tmp_path / "items.csv").write_text(table)  # the run's texts have no category
    new = read_new_items(present(tmp_path, 4), items=tmp_path / "items.csv")
    assert new.tokens == ("c", "d") and new.known == 1
    assert new.titles == {"c": "red lamp", "d": "blue kettle"}
    places, rows = new.features["text"]
    assert places.tolist() == [0, 1]
    assert np.abs(rows - expected[[0, 5]]).max() < 5e-3
    other = ItemOptions(text=("title", "category"))
    with pytest.raises(UserError, match="made of title, category; those of the run .* of title"):
        read_new_items(present(tmp_path, 4), items=tmp_path / "items.csv", options=other)


def test_vectors_are_matched_by_token(tmp_path):
    file = vectors(tmp_path, ["c", "a", "d"], np.eye(3, 4))
    new = read_new_items(present(tmp_path, 4), [file])
    assert new.tokens == ("c", "d")
    assert new.features["text"][1].tolist() == np.eye(3, 4)[[0, 2]].tolist()


def test_what_does_not_fit_is_refused(tmp_path):
    where = present(tmp_path, 4)
    with pytest.raises(UserError, match="3 columns; the run's text features have 4"):
        read_new_items(where, [vectors(tmp_path, ["c"], np.ones((1, 3)))])
    with pytest.raises(UserError, match="NaN"):
        read_new_items(where, [vectors(tmp_path, ["c"], np.full((1, 4), np.nan))])
    with pytest.raises(UserError, match="has all of the 1 items"):
        read_new_items(where, [vectors(tmp_path, ["a"], np.ones((1, 4)))])
    with pytest.raises(UserError, match="1 of the 2 new items have no feature, for example 'd'"):
        read_new_items(where, [vectors(tmp_path, ["c", "d"], np.eye(2, 4) * [[1], [0]])])
    with pytest.raises(UserError, match="no modality 'image'"):
        read_new_items(
            where, [replace(vectors(tmp_path, ["c"], np.ones((1, 4))), modality="image")]
        )
    (tmp_path / "items.csv").write_text("item_id,title\nc,red lamp\n")
    with pytest.raises(UserError, match="no Shop.text.encoder.npz"):
        read_new_items(where, items=tmp_path / "items.csv")


def extend(folder: Path, old: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Write ``old`` as a run's texts and ``rows`` as those of new items; return what is stored."""
    source, target = folder / "data", folder / "wider"
    source.mkdir()
    np.save(source / "Shop.text.npy", old.astype(np.float16))
    (source / "Shop.text.items.txt").write_text("".join(f"i{n}\n" for n in range(len(old))))
    tokens = tuple(f"new{n}" for n in range(len(rows)))
    new = NewItems(tokens, {"text": (np.arange(len(rows)), rows)})
    write_extended(source, target, "Shop", new)
    return np.load(target / "Shop.text.npy")


def test_vectors_of_another_encoder_are_refused_and_single_columns_told(tmp_path, caplog):
    rng = np.random.default_rng(0)
    old, rows = rng.normal(size=(200, 24)), rng.normal(size=(60, 24))
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match="24 of 24 columns of `text`.*another encoder"):
        extend(tmp_path / "other", old, rows * 50 + 200)
    assert not caplog.records
    rows[3, 5] = 300
    written = extend(tmp_path, old, rows)
    assert written[200:, 5] == pytest.approx(old[:, 5].mean(), abs=1e-3)
    assert [r.getMessage()[:46] for r in caplog.records] == [
        "1 of 24 columns of `text` are set to the mean "
    ]


def test_rounding_of_new_items_is_not_blown_up(tmp_path, caplog):
    """Columns: usual, with a new item far out, of a rare label, of mere rounding, constant."""
    rng = np.random.default_rng(0)
    old = rng.normal(size=(200, 5))
    old[:, 2], old[:, 3], old[:, 4] = np.arange(200) == 7, 6e-8 * rng.integers(0, 3, 200), 0.5
    rows = rng.normal(size=(3, 5))
    rows[0, 1], rows[:, 2], rows[:, 3], rows[:, 4] = 12, [0, 1, 0], [1e-4, 0, 6e-8], [0.5, 0.5, 1]
    written = extend(tmp_path, old, rows)
    assert not caplog.records  # rounding is no news
    assert (written[:200] == old.astype(np.float16)).all()
    kept = [0, 1, 2, 4]
    assert np.allclose(written[200:][:, kept], rows[:, kept], atol=1e-2)
    assert written[200:, 3] == pytest.approx(old[:, 3].mean(), abs=6e-8)


@pytest.mark.parametrize("kept", [True, False])
def test_columns_of_new_items_are_kept_where_the_run_has_them(tmp_path, kept):
    source, target = tmp_path / "data", tmp_path / "wider"
    source.mkdir()
    (tmp_path / "goods.csv").write_text("item_id,title,price\na,red lamp,5\nnew,blue tent,7\n")
    if kept:
        write_item_table(tmp_path / "goods.csv", ItemOptions(), ["a"], source / "Shop")
    np.save(source / "Shop.text.npy", np.ones((1, 4), np.float16))
    (source / "Shop.text.items.txt").write_text("a\n")
    files = [vectors(tmp_path, ["a", "new"], np.ones((2, 4)))]
    new = read_new_items(present(source, 4), files, tmp_path / "goods.csv")
    write_extended(source, target, "Shop", new)
    table = target / "Shop.item_table.parquet"
    assert table.is_file() == kept
    if kept:
        assert items_that([Condition.parse("price > 6")], table) == {"new"}
        assert items_that([Condition.parse("price > 1")], table) == {"a", "new"}
