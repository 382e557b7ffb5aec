"""The committed Mini data set is what its generator writes, and has the structure promised."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import yaml

from recbole_bbqrec.cli.main import main
from recbole_bbqrec.data.dataset import MultiModalDataset
from recbole_bbqrec.data.histories import Histories
from recbole_bbqrec.data.protocol.split_hash import split_hash
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.prepare import mini
from recbole_bbqrec.prepare.mini import make_mini
from recbole_bbqrec.prepare.on_demand import check_files, make_at_once
from tests.support.data import make_config

ROOT = Path(__file__).resolve().parents[2]
MINI = ROOT / "dataset" / "Mini"


def sequences_of(folder):
    found = defaultdict(list)
    for line in (folder / "Mini.inter").read_text().splitlines()[1:]:
        user, item, position, _ = line.split("\t")
        assert int(position) == len(found[user])
        found[user].append(item)
    return found


@pytest.fixture(scope="module")
def sequences():
    return sequences_of(MINI)


def test_generator_writes_the_committed_files(tmp_path):
    make_mini(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in MINI.iterdir())
    for path in MINI.iterdir():
        if path.suffix == ".npy":
            np.testing.assert_allclose(np.load(tmp_path / path.name), np.load(path), atol=1e-6)
        elif path.suffix != ".yaml":
            assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_times_never_go_back_and_few_are_tied():
    times = defaultdict(list)
    for line in (MINI / "Mini.inter").read_text().splitlines()[1:]:
        times[line.split("\t")[0]].append(int(line.split("\t")[3]))
    gaps = np.concatenate([np.diff(sequence) for sequence in times.values()])
    assert (gaps >= 0).all() and (gaps % 86_400 == 0).all()
    assert 0.02 < (gaps == 0).mean() < 0.04 and 7 < gaps.mean() / 86_400 < 10


def test_a_run_makes_mini_where_there_is_no_folder_of_it(tmp_path):
    config = {"data_path": tmp_path / "Mini", "dataset": "Mini", "benchmark_filename": None,
              "text_columns": None}  # fmt: skip
    make_at_once(config)
    assert (tmp_path / "Mini" / "Mini.inter").read_bytes() == (MINI / "Mini.inter").read_bytes()
    (tmp_path / "Mini" / "Mini.inter").unlink()
    make_at_once(config)  # whose folder it is now is unknown
    with pytest.raises(UserError, match=r"prepare Mini --data_path .* --force"):
        check_files(config)


def test_prepare_makes_mini_and_replaces_it_only_if_told(tmp_path, capsys):
    command = ["prepare", "Mini", f"--data_path={tmp_path}"]
    assert main(command) == 0 and "synthetic" in capsys.readouterr().out
    assert main(command) == 2 and "--force" in capsys.readouterr().err
    assert main([*command, "--force"]) == 0
    assert not list(tmp_path.glob("Mini.bak*")), "all of it was written by prepare"


def test_another_seed_is_another_data_set(tmp_path):
    make_mini(tmp_path, seed=1)
    assert (tmp_path / "Mini.inter").read_bytes() != (MINI / "Mini.inter").read_bytes()


@pytest.mark.parametrize("below", ["", "folder"])
def test_a_file_in_the_folders_place_is_a_message(tmp_path, monkeypatch, capsys, below):
    (tmp_path / "taken").write_text("mine")
    output = tmp_path / "taken" / below
    monkeypatch.setattr("sys.argv", ["mini", "--output", str(output)])
    with pytest.raises(SystemExit) as stopped:
        mini.main()
    shown = capsys.readouterr().err
    assert stopped.value.code == 2 and "--output" in shown and str(output) in shown
    assert (tmp_path / "taken").read_text() == "mine"


def test_checksums_and_size():
    described = yaml.safe_load((MINI / "Mini.features.yaml").read_text())
    for modality, entry in described.items():
        content = (MINI / f"Mini.{modality}.npy").read_bytes()
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
        tokens = (MINI / f"Mini.{modality}.items.txt").read_bytes()
        assert entry["items_sha256"] == hashlib.sha256(tokens).hexdigest()
    assert sum(path.stat().st_size for path in MINI.iterdir()) < 2_000_000


def test_shape_of_the_interactions(sequences):
    counts = Counter(item for items in sequences.values() for item in items)
    lengths = [len(items) for items in sequences.values()]
    assert 550 <= len(sequences) <= 650 and 370 <= len(counts) <= 430
    assert min(lengths) >= 5 and max(lengths) == 30 and min(counts.values()) >= 5
    assert all(len(set(items)) == len(items) for items in sequences.values())
    ranked = sorted(counts.values(), reverse=True)
    assert sum(ranked[: len(ranked) // 5]) > 0.4 * sum(ranked)  # a long tail


def test_loads_with_its_own_yaml():
    settings = yaml.safe_load((ROOT / "properties" / "dataset" / "Mini.yaml").read_text())
    dataset = MultiModalDataset(make_config(ROOT / "dataset", "Mini", **settings))
    assert dataset.modalities == ("text", "image")
    for name in dataset.modalities:
        features = dataset.item_features(name)
        share = features.present[1:].float().mean()
        assert 0.9 < share < 1 and features.dim == 64
        assert features.metadata["encoder"] == "synthetic"
    train, valid, test = dataset.build()
    assert len(valid) == len(test) == dataset.user_num - 1  # 5-core leaves everyone both
    assert len(Histories.from_training_data(train)) == dataset.user_num - 1
    assert split_hash(train, valid, test) == "1809786a1347700f"


def recall_at_10(scores, sequences, ids):
    """Share of users whose last item is among the ten best of ``scores(last history item)``."""
    hits = 0
    for items in sequences.values():
        target, row = ids[items[-1]], scores[ids[items[-2]]].copy()
        hits += int((row > row[target]).sum() < 10)
    return hits / len(sequences)


def test_behaviour_is_learnable_and_not_mere_popularity(sequences):
    """First-order baselines fitted on the training events only."""
    names = dict(line.split("\t") for line in (MINI / "Mini.titles.tsv").read_text().splitlines())
    tokens = sorted(token for token in names if token != "item_id")
    ids = {token: n for n, token in enumerate(tokens)}
    kinds = sorted({names[token].rsplit(" ", 1)[0] for token in tokens})
    cluster = np.array([kinds.index(names[token].rsplit(" ", 1)[0]) for token in tokens])
    n = len(tokens)
    count, step = np.zeros(n), np.zeros((n, n))
    for items in sequences.values():
        events = [ids[item] for item in items[:-2]]
        np.add.at(count, events, 1)
        np.add.at(step, (events[:-1], events[1:]), 1)
    member = np.eye(len(kinds))[cluster]  # [n_items, n_clusters]
    moves = member.T @ step @ member + 0.1
    moves /= moves.sum(1, keepdims=True)
    within = count / (member.T @ count)[cluster]
    popular = recall_at_10(np.tile(count, (n, 1)), sequences, ids)
    markov = recall_at_10(step + 1e-3 * count, sequences, ids)
    clusters = recall_at_10(moves[cluster][:, cluster] * within, sequences, ids)
    assert len(kinds) == 20
    assert 0.05 <= popular <= 0.10
    assert markov >= 2 * popular
    assert clusters >= 0.30


@pytest.mark.parametrize("modality", ["text", "image"])
def test_each_modality_shows_its_own_half(modality):
    """Ridge regression from features: theme from text only, look from image only."""
    names = dict(line.split("\t") for line in (MINI / "Mini.titles.tsv").read_text().splitlines())
    tokens = (MINI / f"Mini.{modality}.items.txt").read_text().split()
    x = np.load(MINI / f"Mini.{modality}.npy").astype(float)
    x = np.c_[x, np.ones(len(x))]
    fit = np.arange(len(x)) % 2 == 0
    accuracy = {}
    for part, word in (("look", 0), ("theme", 1)):
        words = np.array([names[token].split()[word] for token in tokens])
        kinds, label = np.unique(words, return_inverse=True)
        y = np.eye(len(kinds))[label]
        weights = np.linalg.solve(x[fit].T @ x[fit] + 5 * np.eye(65), x[fit].T @ y[fit])
        accuracy[part] = float(((x[~fit] @ weights).argmax(1) == label[~fit]).mean())
    shown, hidden = ("theme", "look") if modality == "text" else ("look", "theme")
    assert accuracy[shown] > 0.95
    assert accuracy[hidden] < 0.45
