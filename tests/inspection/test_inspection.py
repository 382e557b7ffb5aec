"""Output of `inspect`, against counts and neighbours made by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from recbole_bbqrec.cli.main import main
from recbole_bbqrec.data.titles import read_titles
from recbole_bbqrec.errors import UserError, pip_install
from recbole_bbqrec.inspection.measures import inspect_folder
from recbole_bbqrec.inspection.text import as_text, clip, doubling_bins, share
from tests.support.data import write_features, write_inter
from tests.support.runs import ROOT

SEQUENCES = {"u1": ["a", "b", "a"], "u2": ["a", "c"], "u3": ["d"]}


@pytest.fixture
def data(tmp_path):
    folder = write_inter(tmp_path, "Own", SEQUENCES)
    # In an order of their own, with one item that nobody has touched.
    look = np.array([[9.0, 9.1], [0, 5], [1, 0.2], [2, 0]], dtype=np.float32)
    write_features(folder, "Own", "look", ["z", "c", "b", "a"], look)
    write_features(folder, "Own", "sound", ["d", "b"], np.eye(2, dtype=np.float16))
    (folder / "Own.features.yaml").write_text("look: {encoder: eyes, dimension: 2}\n")
    titles = "item_id\ttitle\na\tcosts $5 or $6\nb\t<b> & 日本\nc\t" + "long " * 60 + "\n"
    (folder / "Own.titles.tsv").write_text(titles, encoding="utf-8")
    return tmp_path


def test_counts(data):
    found = inspect_folder("Own", data)
    assert (found.interactions, found.repeats) == (6, 1)
    assert found.lengths.tolist() == [3, 2, 1]
    assert dict(zip(found.tokens, found.counts.tolist())) == {"a": 3, "b": 1, "c": 1, "d": 1}
    look, sound = found.modalities
    assert (look.name, look.encoder, look.items, look.dim) == ("look", "eyes", 3, 2)
    assert (sound.encoder, sound.items) == ("unknown encoder", 2)
    assert look.interactions == pytest.approx(5 / 6)
    assert sound.interactions == pytest.approx(2 / 6)


def test_neighbours_are_found_by_token(data):
    found = inspect_folder("Own", data, ["a", "d"])
    code = {token: number for number, token in enumerate(found.tokens)}
    near = found.neighbours[code["a"]]
    assert [found.tokens[item] for item in near["look"].items] == ["b", "c"]
    assert near["look"].cosine == pytest.approx((1 / np.sqrt(1.04), 0), abs=1e-4)
    assert not near["sound"].present and near["sound"].items == ()
    assert [found.tokens[item] for item in found.neighbours[code["d"]]["sound"].items] == ["b"]
    # Without --item: of the items with every modality, the most popular.
    assert list(inspect_folder("Own", data).neighbours) == [code["b"]]


def test_neighbours_against_brute_force():
    found = inspect_folder("Mini", ROOT / "dataset", n_queries=5, n_neighbours=6)
    folder = ROOT / "dataset" / "Mini"
    assert len(found.neighbours) == 5
    for modality in ("text", "image"):
        tokens = (folder / f"Mini.{modality}.items.txt").read_text().split()
        matrix = np.load(folder / f"Mini.{modality}.npy").astype(float)
        matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
        for query, near in found.neighbours.items():
            cosine = matrix @ matrix[tokens.index(found.tokens[query])]
            best = np.sort(cosine)[::-1][1:7]
            np.testing.assert_allclose(near[modality].cosine, best, atol=1e-3)
            of_items = [cosine[tokens.index(found.tokens[i])] for i in near[modality].items]
            np.testing.assert_allclose(of_items, near[modality].cosine, atol=1e-3)
            assert query not in near[modality].items


def test_text(data):
    printed = as_text(inspect_folder("Own", data, ["a", "b"]))
    assert "3 users, 4 items, 6 interactions" in printed
    assert "look: 3 of 4 items (75.0%), 83.3% of the interactions, 2 dimensions" in printed
    assert "Nearest to a  costs $5 or $6" in printed and "the item has no such feature" in printed
    assert all(len(line) <= 100 for line in printed.splitlines())
    assert "long…" in printed


def test_unusable_rows_are_reported(data):
    path = data / "Own" / "Own.inter"
    path.write_text(path.read_text() + "u3\td\t0\n\ta\t1\n")
    printed = as_text(inspect_folder("Own", data))
    assert "6 interactions" in printed and "Rows not counted here:" in printed
    assert "1  rows without a user (first: line 9)" in printed
    assert "1  events recorded twice" in printed


def test_bins_cover_all_values():
    values = np.array([1, 1, 2, 3, 4, 1023, 1024])
    edges, counts = doubling_bins(values)
    assert counts.sum() == len(values)
    assert counts.tolist() == [2, 2, 1, 0, 0, 0, 0, 0, 0, 1, 1] and edges[-1] == 2048
    edges, counts = doubling_bins(np.array([5, 5]))
    assert (edges.tolist(), counts.tolist()) == ([4, 8], [2])


def test_small_helpers():
    assert share(9999, 10000) == "99.9%" and share(5, 5) == "100.0%"
    assert clip("abcdef", 4) == "abc…" and clip("abcd", 4) == "abcd"


def test_without_features_and_titles(tmp_path):
    write_inter(tmp_path, "Own", SEQUENCES)
    found = inspect_folder("Own", tmp_path)
    assert found.neighbours == {} and "No features in this folder" in as_text(found)


@pytest.mark.parametrize(
    ("name", "items", "message"),
    [
        ("None", [], "None.inter not found; expected a prepared data set"),
        ("Own", ["q"], "--item 'q' is not among the 4 items .* .for example 'a'."),
    ],
)
def test_faults(data, name, items, message):
    with pytest.raises(UserError, match=message):
        inspect_folder(name, data, items)


def test_command_line_without_matplotlib(data, rundir, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    arguments = ["inspect", "Own", "--data_path", str(data)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "Nearest to b" in printed and pip_install("plots") in printed
    assert main([*arguments, "--output", "x.png"]) == 2
    assert main([*arguments, "--output", "x.pdf"]) == 2
    assert "ends in .png" in capsys.readouterr().err
    assert not list(rundir.glob("*.p*"))


@pytest.mark.slow
def test_picture(data, rundir, capsys, recwarn):
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    from matplotlib import image

    for item in ([], ["--item", "a", "--item", "c"]):
        arguments = ["inspect", "Own", "--data_path", str(data), *item]
        assert main(arguments) == 0
        pixels = image.imread("Own-inspect.png")
        assert pixels.shape[1] == 1430 and pixels[..., :3].std() > 0.1
        # Nothing touches the picture's edge, where it would be cut.
        border = [pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]
        assert all((edge[:, :3] == 1).all() for edge in border)
    assert not [w for w in recwarn if "Glyph" in str(w.message)]
    assert main([*arguments, "--output", "none/such/x.png"]) == 0  # folders are made
    assert main([*arguments, "--output", "x.svg"]) == 0
    drawn = Path("x.svg").read_text(encoding="utf-8")
    assert drawn.startswith("<?xml") and "dc:date" not in drawn
    assert main([*arguments, "--output", str(data / "Own" / "Own.inter" / "x.png")]) == 2


def test_a_title_cannot_command_the_terminal(tmp_path):
    (tmp_path / "t.tsv").write_text("item_id\ttitle\na\t\x1b[2J\x9b31mNice\x07 \u2603\n", "utf-8")
    assert read_titles(tmp_path / "t.tsv") == {"a": "[2J31mNice \u2603"}
    assert clip("\x1b[2Jencoder", 40) == "[2Jencoder"
