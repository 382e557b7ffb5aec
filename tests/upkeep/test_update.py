"""New events, users and items folded into a finished run: nothing old moves, and it trains on."""

from __future__ import annotations

import errno
import json
import re
import shutil
from functools import partial
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch

from recbole_bbqrec import load_run
from recbole_bbqrec.atomic import sha256_of
from recbole_bbqrec.cli.main import main
from recbole_bbqrec.data.catalogue import add_later
from recbole_bbqrec.data.protocol.events import order_events
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.model.sequential_recommender.bbqrec import BBQRec
from recbole_bbqrec.prepare.tables.events import EventOptions
from recbole_bbqrec.prepare.tables.ledger import Ledger
from recbole_bbqrec.run_files.per_user import PerUser
from recbole_bbqrec.tokenizer.semantic_ids import SemanticIds
from recbole_bbqrec.trainer.phases.generate_phase import GeneratePhase
from recbole_bbqrec.upkeep import update as update_module
from recbole_bbqrec.upkeep.add_items import open_for_items
from recbole_bbqrec.upkeep.base_run import open_base_run
from recbole_bbqrec.upkeep.new_events import merge, read_new_events
from tests.support.contract import small_bbqrec

DAY = 86_400
NEWEST = 21_000  # day of the new events


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run and an update of it: directories, the new events, hashes before, the words."""
    root = tmp_path_factory.mktemp("update")
    before = small_bbqrec(root)
    old = load_run(before)
    hashes = {p: sha256_of(p) for p in before.rglob("*") if p.is_file()}
    items, events = old.dataset.item_tokens, old.dataset.file_events
    users = [str(user) for user in old.dataset.field2id_token["user_id"]]
    rows = [(users[n], items[n % 60 + 1], NEWEST * DAY + n) for n in range(1, 31)]
    rows += [("newcomer", items[n], NEWEST * DAY + 9 * n) for n in range(1, 5)]
    rows += [("newcomer", "fresh", NEWEST * DAY + 99), (users[3], "fresh", NEWEST * DAY + 99)]
    first = events.users[0], events.items[0], events.times[0]
    rows += [(users[first[0]], items[first[1]], int(first[2]))]  # the run has it already
    rows += [(users[5], items[7], int(events.times[events.users == 5].min()) - DAY)]  # older
    rows += [(users[6], "unheard-of", NEWEST * DAY)]
    table = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    table.sample(frac=1, random_state=0).to_csv(root / "new.csv", index=False)
    (root / "items.txt").write_text("fresh\n")
    words = [f"--interactions={root / 'new.csv'}"]
    for name in ("text", "image"):
        features = old.dataset.item_features(name)
        np.save(root / f"{name}.npy", features.matrix[features.present][:1].float().numpy())
        words.append(f"--features={name}={root / name}.npy,{root / 'items.txt'}")
    after = root / "after"
    assert main(["update", str(before), *words, f"--output={after}"]) == 0
    return SimpleNamespace(
        before=before, after=after, table=table, hashes=hashes, words=words, root=root
    )


@pytest.mark.slow
def test_no_semantic_id_changes_and_the_run_is_not_touched(runs):
    assert {p: sha256_of(p) for p in runs.before.rglob("*") if p in runs.hashes} == runs.hashes
    first, second = (
        SemanticIds.load(p / "semantic_ids.safetensors") for p in (runs.before, runs.after)
    )
    assert second.item_tokens == (*first.item_tokens, "fresh")
    assert torch.equal(second.codes[:-1], first.codes)
    assert torch.equal(second.vectors[:-1], first.vectors)
    assert not list(runs.root.glob(".after*"))
    told = json.loads((runs.after / "result.json").read_text())["updated"]
    assert told["counts"] == {"events": 37, "users": 31, "new_users": 1, "older": 1}
    assert (told["items_added"], told["ids_changed"], told["epochs"]) == (1, 0, 2)
    assert "unheard-of" in told["left_out"] and "has already" in told["left_out"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "absent, says",
    [("data/manifest.json", "keeps no data of its own"), ("semantic_ids.safetensors", "phases")],
)
def test_a_run_of_which_none_can_be_made_is_refused(runs, tmp_path, absent, says):
    lacking = tmp_path / "lacking"
    shutil.copytree(runs.before, lacking)
    (lacking / absent).unlink()
    for open_run in (open_for_items, partial(open_base_run, model_kind=BBQRec, kind_words="")):
        with pytest.raises(UserError, match=says):
            open_run(lacking)
    with pytest.raises(UserError, match="is of BBQRec; expected a tree"):
        open_base_run(runs.before, int, "a tree")


@pytest.mark.slow
def test_each_user_has_old_and_new_events_by_time(runs):
    """The histories of the new run, and those that pandas makes of both tables."""

    def table_of(run):
        dataset, events = run.dataset, run.dataset.file_events
        users = dataset.field2id_token["user_id"][events.users].astype(str)
        items = np.array(dataset.item_tokens)[events.items]
        return pd.DataFrame({"user_id": users, "item_id": items, "timestamp": events.times})

    old, new = load_run(runs.before), load_run(runs.after)
    assert new.dataset.item_tokens == [*old.dataset.item_tokens, "fresh"]
    both = pd.concat([table_of(old), runs.table[runs.table["item_id"] != "unheard-of"]])
    both = both.drop_duplicates().sort_values(["user_id", "timestamp"], kind="stable")
    found = table_of(new).sort_values(["user_id"], kind="stable")
    pd.testing.assert_frame_equal(
        found.reset_index(drop=True), both.reset_index(drop=True), check_dtype=False
    )


@pytest.mark.slow
def test_metrics_before_and_after_are_those_of_the_newest_day(runs):
    """The metrics after are the evaluation's for each user, those before of the old run's lists."""
    told = json.loads((runs.after / "result.json").read_text())["updated"]["newest"]
    assert told["day"] == "2027-07-01" and told["unknown"] == 2
    users = PerUser.load(runs.after / "per_user.npz")
    newest = runs.table[runs.table["timestamp"] >= NEWEST * DAY]
    chosen = np.isin(users.users, newest["user_id"])
    assert told["targets"] == chosen.sum()
    for name, value in told["after"].items():
        assert value == pytest.approx(float(users.metrics[name][chosen].mean()), abs=1e-6)
    old, new = load_run(runs.before), load_run(runs.after)
    rows = new.test_data._dataset.inter_feat
    tokens, hits = np.array(new.dataset.item_tokens), []
    for row in range(len(rows)):
        user = str(new.dataset.field2id_token["user_id"][int(rows["user_id"][row])])
        if user not in set(newest["user_id"]):
            continue
        history = tokens[rows["item_id_list"][row][: int(rows["item_length"][row])].numpy()]
        history = [token for token in history if token != "fresh"]
        listed = list(old.recommend(histories=[history], k=10)["item"])
        hits.append(tokens[int(rows["item_id"][row])] in listed)
    assert told["before"]["recall@10"] == pytest.approx(np.mean(hits))


@pytest.mark.slow
def test_an_update_starts_from_the_old_weights_and_resumes_to_the_bit(runs, monkeypatch):
    output = runs.root / "resumed"
    command = ["update", str(runs.before), *runs.words, f"--output={output}"]
    train, begun = GeneratePhase.train_epoch, []

    def stop(self, epoch, on_step):
        begun.append({k: v.clone() for k, v in self.model.state_dict().items()})
        if len(begun) in (1, 3):  # before the first epoch, and after one
            raise KeyboardInterrupt
        train(self, epoch, on_step)

    monkeypatch.setattr(GeneratePhase, "train_epoch", stop)
    assert [main(command), main(command), main(command)] == [130, 130, 0]
    assert len(begun) == 4 and not list(runs.root.glob(".resumed*"))
    old = load_run(runs.before).model
    n = old.n_items
    for name, weights in old.state_dict().items():
        start = begun[0][name]
        assert torch.equal(start if start.shape == weights.shape else start[:n], weights), name
    whole, resumed = load_run(runs.after).model, load_run(output).model
    for name, weights in whole.state_dict().items():
        assert torch.equal(weights, resumed.state_dict()[name]), name
    assert any(not torch.equal(w, begun[0][name]) for name, w in whole.state_dict().items())


@pytest.mark.slow
def test_an_updated_run_is_a_run(runs, capsys):
    """The run recommends to new users, is evaluated, takes items and a further update."""
    new = load_run(runs.after)
    assert len(new.recommend(users=["newcomer"], k=5)) == 5
    assert main(["evaluate", str(runs.after)]) == 0
    value = json.loads((runs.after / "result.json").read_text())["test_result"]["recall@10"]
    assert f"{value:.4f}" in capsys.readouterr().out
    table = runs.root / "later.csv"
    table.write_text(f"user_id,item_id,timestamp\nnewcomer,fresh,{(NEWEST + 1) * DAY}\n")
    third = runs.root / "third"
    words = [f"--interactions={table}", "--epochs=1", f"--output={third}"]
    assert main(["update", str(runs.after), *words]) == 0
    assert load_run(third).dataset.item_tokens == new.dataset.item_tokens
    assert "1 test targets of the newest day" in capsys.readouterr().out
    assert main(["update", str(runs.after), *words]) == 2
    assert "exists" in capsys.readouterr().err


@pytest.mark.slow
def test_no_room_is_an_error_that_names_the_folder(runs, capsys, monkeypatch):
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(update_module, "write_updated", Mock(side_effect=full))
    words = [runs.words[0], f"--output={runs.root / 'full'}"]
    assert main(["update", str(runs.before), *words]) == 2
    assert re.search(r"Cannot write .*full.update: no space left", capsys.readouterr().err)
    assert not list(runs.root.glob(".full*"))


@pytest.mark.slow
def test_strict_refuses_unknown_items_and_leaves_nothing(runs, capsys):
    output = runs.root / "strict"
    words = [runs.words[0], "--strict", f"--output={output}"]
    assert main(["update", str(runs.before), *words]) == 2
    assert "unheard-of" in capsys.readouterr().err and not output.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--epochs=0"], "at least one epoch"), (["--learning_rate=0"], "above 0"), ([], "no file")],
)
def test_mistakes_are_said_before_the_run_is_read(words, message, capsys, tmp_path):
    fixed = [f"--interactions={tmp_path / 'absent.csv'}", f"--output={tmp_path / 'out'}"]
    assert main(["update", "nowhere", *fixed, *words]) == 2
    assert message in capsys.readouterr().err


# reading and merging --------------------------------------------------------------------------


def data_set(times=(10, 20, 10), day_length=1.0):
    """Two users, a with the items x and y, and b with x."""
    users, items = np.array([1, 1, 2]), np.array([1, 2, 1])
    positions = np.array([0.0, 1.0, 0.0])
    events = order_events(users, items, positions, np.array(times, float), day_length)
    tokens = {"user_id": np.array(["[PAD]", "a", "b"], object)}
    return SimpleNamespace(
        file_events=events, field2id_token=tokens, uid_field="user_id",
        item_tokens=["[PAD]", "x", "y"],
    )  # fmt: skip


def read(tmp_path, text, items=("x", "y"), **options):
    path, ledger = tmp_path / "new.csv", Ledger()
    path.write_text(text)
    return read_new_events(path, EventOptions(**options), set(items), ledger), ledger


def listed(events):
    names = zip(events.users, events.items)
    return [(events.user_names[user], events.item_names[item]) for user, item in names]


def test_times_are_brought_to_the_unit_of_the_run(tmp_path):
    """A data set with times in days: a table in seconds is put in its place."""
    text = f"user_id,item_id,timestamp\na,y,{15 * DAY}\nc,x,{30 * DAY}\na,x,{20 * DAY}\n"
    new, ledger = read(tmp_path, text)
    merged, counts = merge(data_set(), new, ledger)
    expected = [("a", "x"), ("a", "y"), ("a", "y"), ("a", "x"), ("b", "x"), ("c", "x")]
    assert listed(merged) == expected
    assert merged.times.tolist() == [10, 15, 20, 20, 10, 30]
    assert (counts.events, counts.users, counts.new_users, counts.older) == (3, 2, 1, 1)


def test_without_times_new_events_follow(tmp_path):
    new, ledger = read(tmp_path, "user_id,item_id\na,y\nb,y\na,y\n")
    merged, counts = merge(data_set(times=(0, 1, 0), day_length=DAY), new, ledger)
    assert listed(merged) == [
        ("a", "x"),
        ("a", "y"),
        ("a", "y"),
        ("a", "y"),
        ("b", "x"),
        ("b", "y"),
    ]
    assert merged.times is None and counts.older == 0
    with pytest.raises(UserError, match="no times"):
        merge(data_set(), new, ledger)


def test_nothing_new_is_an_error(tmp_path):
    new, ledger = read(tmp_path, f"user_id,item_id,timestamp\na,y,{20 * DAY}\n")
    with pytest.raises(UserError, match="1  events that the run has already"):
        merge(data_set(), new, ledger)
    with pytest.raises(UserError, match=r"1 items that the run does not have \('z'\)"):
        read(tmp_path, "user_id,item_id,timestamp\na,z,100000\n")
    with pytest.raises(UserError, match="has no rows below its header"):
        read(tmp_path, "user_id,item_id,timestamp\n")


def test_items_keep_the_internal_ids_of_the_vocabulary_file(tmp_path):
    """New items come after them, and the events are those of the same tokens."""
    present = np.array(["[PAD]", "x", "new", "y"], object)
    data = SimpleNamespace(
        dataset_path=tmp_path, dataset_name="Shop", iid_field="item_id",
        field2id_token={"item_id": present},
        field2token_id={"item_id": {token: number for number, token in enumerate(present)}},
        inter_feat=pd.DataFrame({"item_id": [1, 2, 3, 2]}),
    )  # fmt: skip
    (tmp_path / "Shop.vocabulary.txt").write_text("y\nx\nlate\n")
    (tmp_path / "Shop.added.txt").write_text("late\n")
    added = add_later(data)
    tokens = data.field2id_token["item_id"]
    assert tokens.tolist() == ["[PAD]", "y", "x", "late", "new"]
    assert tokens[data.inter_feat["item_id"]].tolist() == ["x", "new", "y", "new"]
    assert added.nonzero().squeeze(1).tolist() == [3]
    assert data.field2token_id["item_id"] == {token: n for n, token in enumerate(tokens)}
    (tmp_path / "Shop.vocabulary.txt").write_text("y\ngone\n")
    with pytest.raises(UserError, match="lists 'gone', which is no item"):
        add_later(data)
