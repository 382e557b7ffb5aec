"""Times closer than float32 tells apart: their order must decide, not that of the file."""

from __future__ import annotations

import numpy as np
import pytest
from recbole.data.dataset import SequentialDataset

from recbole_bbqrec.data import event_times
from recbole_bbqrec.data.dataset import MultiModalDataset
from recbole_bbqrec.data.loaders import create_dataset, split
from recbole_bbqrec.data.protocol.split_hash import split_hash
from recbole_bbqrec.errors import UserError
from tests.support.data import make_config, random_sequences, write_inter

NOW = 1_700_000_000


def write(root, sequences, times, rng):
    """One event a line, lines shuffled; ``times`` maps a position in the history to a time."""
    lines = [
        f"{user}\t{item}\t{times(place)}"
        for user, items in sequences.items()
        for place, item in enumerate(items)
    ]
    rng.shuffle(lines)
    folder = write_inter(root, "Tiny", sequences)
    header = "user_id:token\titem_id:token\ttimestamp:float"
    (folder / "Tiny.inter").write_text("\n".join([header, *lines]) + "\n")


def read(root, dataset_class):
    return create_dataset(make_config(root, "Tiny", modalities=None), dataset_class)


@pytest.mark.parametrize("dataset_class", [SequentialDataset, MultiModalDataset])
@pytest.mark.parametrize("by_user", [False, True])
def test_order_of_close_times_decides(tmp_path, monkeypatch, dataset_class, by_user):
    if by_user:
        monkeypatch.setattr(event_times, "EXACT_IN_FLOAT32", 5)
    rng = np.random.default_rng(0)
    sequences = random_sequences(rng, 30, 40, 12)
    small, close = tmp_path / "small", tmp_path / "close"
    write(small, sequences, lambda place: place, rng)
    write(close, sequences, lambda place: NOW + 10 * place + 0.5, rng)
    expected = split_hash(*read(small, dataset_class).build())
    assert split_hash(*read(close, dataset_class).build()) == expected


@pytest.mark.parametrize("kind", ["user", "item"])
def test_the_name_of_the_padding_is_refused(tmp_path, kind):
    sequences = random_sequences(np.random.default_rng(0), 10, 20, 8)
    folder = write_inter(tmp_path, "Tiny", sequences)
    token = {"user": "u1\t", "item": "\ti1\t"}[kind]
    text = (folder / "Tiny.inter").read_text()
    changed = text.replace(token, token.replace(token.strip(), "[PAD]"))
    assert changed != text
    (folder / "Tiny.inter").write_text(changed)
    with pytest.raises(UserError, match=rf"the {kind} '\[PAD\]'.*Rename or remove it"):
        read(tmp_path, SequentialDataset)


def test_labels_that_the_data_lack_are_named(tmp_path):
    path = (
        write_inter(tmp_path, "Tiny", {f"u{n}": ["a", "b", "c"] for n in range(5)}) / "Tiny.inter"
    )
    header, *lines = path.read_text().splitlines()
    path.write_text(
        "\n".join([header + "\trating:float", *(f"{line}\t3" for line in lines)]) + "\n"
    )
    own = {"eval_args": {"mode": "labeled"}, "metrics": ["AUC"], "valid_metric": "AUC"}
    own["load_col"] = {"inter": ["user_id", "item_id", "timestamp", "rating"]}
    config = make_config(tmp_path, "Tiny", modalities=None, **own)
    with pytest.raises(UserError, match="no labels: expected a loaded column `label`"):
        create_dataset(config, SequentialDataset)
    config["threshold"] = {"rating": 2}
    assert "label" in create_dataset(config, SequentialDataset).inter_feat


def test_histories_too_short_to_train_on_are_refused(tmp_path):
    write_inter(tmp_path, "Tiny", {f"u{user}": [f"i{user}"] for user in range(12)})
    config = make_config(tmp_path, "Tiny", modalities=None)
    with pytest.raises(UserError, match="nothing to train on"):
        split(config, create_dataset(config, SequentialDataset))


def test_times_that_are_told_apart_stay(tmp_path):
    rng = np.random.default_rng(0)
    sequences = random_sequences(rng, 10, 20, 8)
    write(tmp_path, sequences, lambda place: NOW + 86_400 * place, rng)
    times = read(tmp_path, SequentialDataset).inter_feat["timestamp"]
    assert sorted(set(times)) == [NOW + 86_400 * place for place in range(len(set(times)))]


def test_equal_times_stay_equal(tmp_path):
    sequences = {f"u{user}": [f"i{item}" for item in range(6)] for user in range(4)}
    write(tmp_path, sequences, lambda place: NOW + place // 2, np.random.default_rng(0))
    assert sorted(set(read(tmp_path, SequentialDataset).inter_feat["timestamp"])) == [1, 2, 3]


@pytest.mark.parametrize("dataset_class", [SequentialDataset, MultiModalDataset])
@pytest.mark.parametrize("time", ["", "inf", "-inf", "nan", "soon"])
def test_events_without_a_finite_time_are_refused(tmp_path, dataset_class, time):
    """RecBole would give them the mean of all times, and the held-out items would be others."""
    sequences = random_sequences(np.random.default_rng(0), 10, 20, 8)
    folder = write_inter(tmp_path, "Tiny", sequences)
    lines = (folder / "Tiny.inter").read_text().splitlines()
    lines[3] = "\t".join([*lines[3].split("\t")[:2], time])
    (folder / "Tiny.inter").write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=r"Tiny\.inter: 1 of .* events .*event 3 with"):
        read(tmp_path, dataset_class)


def test_times_that_are_no_numbers_by_their_header_are_refused(tmp_path):
    """RecBole would number them in order of appearance."""
    folder = write_inter(tmp_path, "Tiny", random_sequences(np.random.default_rng(0), 10, 20, 8))
    text = (folder / "Tiny.inter").read_text().replace("timestamp:float", "timestamp:token")
    (folder / "Tiny.inter").write_text(text)
    with pytest.raises(UserError, match="declares its times as `timestamp:token`"):
        read(tmp_path, SequentialDataset)


def test_a_test_part_without_users_is_refused(tmp_path):
    write_inter(tmp_path, "Tiny", {f"u{u}": [f"i{u}", f"i{u + 1}"] for u in range(12)})
    config = make_config(tmp_path, "Tiny", modalities=None)
    with pytest.raises(UserError, match="nothing to test on"):
        split(config, create_dataset(config, SequentialDataset))


def test_a_file_in_another_encoding_is_a_message(tmp_path):
    folder = write_inter(tmp_path, "Tiny", random_sequences(np.random.default_rng(0), 10, 20, 8))
    text = (folder / "Tiny.inter").read_text().replace("u1", "\u00fc1")
    (folder / "Tiny.inter").write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match="cannot read the data set"):
        read(tmp_path, SequentialDataset)


@pytest.mark.parametrize("time", ["timestamp:token", "timestamp:float"])
def test_times_that_are_not_loaded_do_not_matter(tmp_path, time):
    folder = write_inter(tmp_path, "Tiny", random_sequences(np.random.default_rng(0), 10, 20, 8))
    text = (folder / "Tiny.inter").read_text().replace("timestamp:float", time)
    (folder / "Tiny.inter").write_text(text.replace("\t3\n", "\t\n"))
    config = make_config(
        tmp_path, "Tiny", modalities=None, load_col={"inter": ["user_id", "item_id"]}
    )
    event_times.check_times(config)


def test_events_that_are_filtered_by_time_need_none(tmp_path):
    sequences = random_sequences(np.random.default_rng(0), 10, 20, 8)
    folder = write_inter(tmp_path, "Tiny", sequences)
    text = (folder / "Tiny.inter").read_text().replace("\t1\n", "\t\n")
    (folder / "Tiny.inter").write_text(text)
    config = make_config(tmp_path, "Tiny", modalities=None, val_interval={"timestamp": "[0,inf)"})
    events = sum(map(len, sequences.values()))
    assert create_dataset(config, SequentialDataset).inter_num == events - len(sequences)
