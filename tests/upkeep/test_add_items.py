"""New items for a finished run: the old ones keep everything, and both are recommended."""

from __future__ import annotations

import json
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch

from recbole_bbqrec import load_run
from recbole_bbqrec.atomic import sha256_of
from recbole_bbqrec.cli.main import main
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.generator.inference.ranking import rank
from recbole_bbqrec.generator.items.catalogue import Catalogue
from recbole_bbqrec.tokenizer.semantic_ids import SemanticIds
from recbole_bbqrec.upkeep import hidden_items
from recbole_bbqrec.upkeep.add_items import add_items
from recbole_bbqrec.upkeep.hidden_items import hide_and_add
from recbole_bbqrec.upkeep.nearest import nearest_trained
from recbole_bbqrec.upkeep.new_items import NewItems
from tests.support.contract import small_bbqrec

NEW = 4  # items that are added; the first two are copies of old ones


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run, and the one with new items: their directories, and hashes of the first before."""
    root = tmp_path_factory.mktemp("upkeep")
    before = small_bbqrec(root)
    hashes = {p: sha256_of(p) for p in before.rglob("*") if p.is_file()}
    dataset = load_run(before).dataset
    (root / "items.txt").write_text("".join(f"new{n}\n" for n in range(NEW)))
    words = []
    for name in ("text", "image"):
        features = dataset.item_features(name)
        rows = features.matrix[features.present][:NEW].float().numpy()
        rows[2:] += 0.1
        np.save(root / f"{name}.npy", rows)
        words.append(f"--features={name}={root / name}.npy,{root / 'items.txt'}")
    after = root / "saved" / "after"
    assert main(["add_items", str(before), *words, f"--output={after}"]) == 0
    return before, after, hashes


@pytest.mark.slow
def test_old_items_keep_their_ids_and_the_run_is_not_touched(runs):
    before, after, hashes = runs
    assert {p: sha256_of(p) for p in before.rglob("*") if p.is_file() and p in hashes} == hashes
    first, second = (SemanticIds.load(p / "semantic_ids.safetensors") for p in (before, after))
    n = len(first.item_tokens)
    assert second.item_tokens == (*first.item_tokens, *(f"new{k}" for k in range(NEW)))
    assert torch.equal(second.codes[:n], first.codes)
    assert torch.equal(second.vectors[:n], first.vectors)
    assert len(torch.unique(second.codes.flatten(1), dim=0)) == n + NEW
    report = json.loads((after / "result.json").read_text())["added_items"]
    assert (report["items_added"], report["ids_changed"], report["ids_shared"]) == (NEW, 0, 0)


@pytest.mark.slow
def test_among_the_old_items_nothing_changes(runs):
    """Scores depend on the items that compete; among the old ones alone they are the same bits."""
    one, two = map(load_run, runs[:2])
    n = one.dataset.item_num
    assert torch.equal(two.model.features[:n], one.model.features)
    old = Catalogue.build(
        two.model.codes, two.model.vectors, two.model.codebook_size, torch.arange(1, n),
        two.model.features, two.model.neighbours,
    )  # fmt: skip
    history = torch.randint(1, n, (30, 5), generator=torch.Generator().manual_seed(0))
    expected = rank(one.model.generator, one.model.catalogue, history, 40, torch.float32)
    found = rank(two.model.generator, old, history, 40, torch.float32)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


@pytest.mark.slow
def test_old_and_new_items_are_recommended(runs):
    two = load_run(runs[1])
    n = two.dataset.item_num - 1
    table = two.recommend(histories=[["new0", "new2"], [two.dataset.item_tokens[5]]], k=n)
    for _, part in table.groupby("user"):
        assert sorted(part["item"]) == sorted(two.dataset.item_tokens[1:])
        assert np.isfinite(part["score"]).all()
    again = load_run(runs[1]).recommend(histories=[["new0", "new2"]], k=n)
    pd.testing.assert_frame_equal(again, table[table["user"] == 0])


@pytest.mark.slow
def test_metrics_are_those_of_the_wider_catalogue_and_items_can_be_added_again(runs, capsys):
    before, after, _ = runs
    assert main(["evaluate", str(after)]) == 0
    value = json.loads((after / "result.json").read_text())["test_result"]["recall@10"]
    assert f"{value:.4f}" in capsys.readouterr().out
    rows = np.load(after.parents[1] / "text.npy")[:1]
    more = NewItems(("newer",), {"text": (np.array([0]), rows)})
    third = after.with_name("third")
    assert add_items(after, more, third).items_before == load_run(after).dataset.item_num - 1
    assert "newer" in load_run(third).dataset.item_tokens
    with pytest.raises(UserError, match="exists"):
        add_items(after, more, third)


@pytest.mark.slow
def test_hidden_items_are_found_again(runs, tmp_path, monkeypatch):
    """An interruption after the training costs no second training."""
    output = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(hidden_items, "_measure", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            hide_and_add(runs[0], output, hide="0.2")
    with pytest.raises(UserError, match="begun by another command"):
        hide_and_add(runs[0], output, hide="0.3")
    with monkeypatch.context() as patch:
        patch.setattr(hidden_items, "run", Mock(side_effect=AssertionError("trained again")))
        outcome = hide_and_add(runs[0], output, hide="0.2")
    with pytest.raises(UserError, match="is finished"):
        hide_and_add(runs[0], output, hide="0.2")
    report = json.loads((output / "hidden_items.json").read_text())
    assert [row["name"] for row in report["rows"]] == [row.name for row in outcome.rows]
    targets = outcome.targets
    assert targets["cold"] + targets["warm"] == targets["all"] and targets["cold"] > 0
    assert outcome.churn.items_added == 18 and len(outcome.rows) == 4
    for row in outcome.rows:
        mean = sum(row.values[kind][0] * targets[kind] for kind in ("cold", "warm"))
        assert row.values["all"][0] == pytest.approx(mean / targets["all"])


@pytest.mark.slow
def test_items_hidden_by_time_are_those_first_seen_after_the_cut(runs):
    whole = load_run(runs[0])
    dataset = whole.dataset
    path = runs[0] / "data" / "Mini" / "Mini.inter"
    table = pd.read_csv(path, sep="\t").rename(columns=lambda name: name.split(":")[0])
    first = table.groupby("item_id")["unix_time"].min()
    expected = set(first[first > table["unix_time"].quantile(0.2)].index)
    hidden = hidden_items._hidden(whole, ["text", "image"], "time:0.2", seed=0)
    assert {dataset.item_tokens[item] for item in hidden} == expected and expected


@pytest.mark.parametrize("hide", ["0", "1", "-0.1", "nan", "some", "time:2", "next_day"])
def test_what_to_hide_is_a_share_or_a_time(hide, tmp_path):
    with pytest.raises(UserError, match="expected a share of the items"):
        hide_and_add(tmp_path / "nowhere", tmp_path / "out", hide)


def test_nearest_trained_against_a_loop():
    torch.manual_seed(0)
    parts = [torch.randn(30, 5), torch.randn(30, 3)]
    parts[0][28], parts[1][29] = 0, 0  # each lacks a modality
    trained = torch.arange(30) % 3 > 0
    trained[25:] = False
    near = nearest_trained(parts, trained, torch.tensor([27, 28, 29]), 4)
    for row, item in enumerate((27, 28, 29)):
        having = [part for part in parts if part[item].any()]
        cosine = {
            other: np.mean([float(torch.cosine_similarity(p[item], p[other], 0)) for p in having])
            for other in trained.nonzero().squeeze(1).tolist()
        }
        best = sorted(cosine, key=lambda other: -cosine[other])[:4]
        assert near.items[row].tolist() == best
        weights = np.maximum([cosine[other] for other in best], 0)
        assert near.weights[row].numpy() == pytest.approx(weights / weights.sum(), abs=1e-6)
    table = torch.randn(30, 2)
    expected = sum(w * table[i] for w, i in zip(near.weights[0], near.items[0]))
    assert torch.allclose(near.mean(table)[0], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no item to add"),
        (["--features=text=a.npy,b.txt", "--nearest=0"], "at least 1"),
        (["--hide=0.1", "--features=text=a.npy,b.txt"], "own items"),
    ],
)
def test_mistakes_are_said_before_the_run_is_read(words, message, capsys, tmp_path):
    assert main(["add_items", "nowhere", f"--output={tmp_path / 'out'}", *words]) == 2
    assert message in capsys.readouterr().err
