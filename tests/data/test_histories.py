"""Training histories against the raw sequences, and batches against plain enumeration."""

from __future__ import annotations

import gc
import hashlib
import weakref

import numpy as np
import pytest
import torch
from recbole.data.dataset import SequentialDataset

from recbole_bbqrec.data.dataset import MultiModalDataset
from recbole_bbqrec.data.histories import Histories, HistoryBatches
from recbole_bbqrec.data.protocol.split_hash import split_hash
from recbole_bbqrec.errors import UserError
from tests.support.data import make_config, random_sequences, write_features, write_inter


def held_out(n_events):
    """Number of a user's last events that leave-one-out takes from training."""
    return min(2, max(0, n_events - 2))


@pytest.fixture(scope="module")
def sequences():
    short = {"two": ["i1", "i2"], "three": ["i3", "i1", "i2"]}
    return {**random_sequences(np.random.default_rng(1), 40, 60, 35), **short}


def build(root, sequences, dataset_class=SequentialDataset, order="", **settings):
    write_inter(root, "Seq", sequences, order)
    return dataset_class(make_config(root, "Seq", **settings)).build()


@pytest.mark.parametrize("longest", [1, 2, 20, 50])
def test_training_events_are_the_sequences_without_the_held_out_items(tmp_path, sequences, longest):
    train, _, _ = build(tmp_path, sequences, MAX_ITEM_LIST_LENGTH=longest)
    histories = Histories.from_training_data(train)
    item, user = train.field2id_token["item_id"], train.field2id_token["user_id"]
    offsets = histories.offsets.tolist()
    found = {
        str(user[u]): [str(item[i]) for i in histories.items[offsets[n] : offsets[n + 1]]]
        for n, u in enumerate(histories.users.tolist())
    }
    assert found == {u: s[: len(s) - held_out(len(s))] for u, s in sequences.items()}
    assert len(histories) == len(sequences)
    assert histories.users.tolist() == sorted(histories.users.tolist())
    assert histories.items.dtype == histories.offsets.dtype == histories.users.dtype == torch.int64


def test_trained_items_are_those_of_the_training_part(tmp_path):
    sequences = {"a": ["p", "q", "r", "s"], "b": ["q", "p", "t", "r"]}
    train, _, _ = build(tmp_path, sequences)
    seen = Histories.from_training_data(train).trained_items(train.item_num)
    tokens = train.field2id_token["item_id"]
    assert {str(tokens[i]) for i in torch.nonzero(seen).flatten()} == {"p", "q"}
    assert seen.shape == (train.item_num,) and not seen[0]


def test_training_rows_with_gaps_are_refused(tmp_path, sequences):
    train, _, _ = build(tmp_path, sequences)
    train.inter_feat = train.inter_feat[torch.arange(0, len(train), 2)]
    with pytest.raises(UserError, match="not all prefixes"):
        Histories.from_training_data(train)


def test_histories_are_made_once_a_data_set(tmp_path, sequences):
    parts = build(tmp_path, sequences)
    first = Histories.from_training_data(parts[0])
    split_hash(*parts)
    assert Histories.from_training_data(parts[0]) is first
    other = build(tmp_path / "other", {"a": ["p", "q", "r", "s"]})[0]
    assert len(Histories.from_training_data(other)) == 1
    rows = weakref.ref(other.inter_feat)
    del other
    gc.collect()
    assert rows() is None  # what is kept does not hold the rows


def test_split_hash_from_first_principles(tmp_path, sequences):
    lines = []
    for user in sorted(sequences):
        events = sequences[user]
        n_valid, n_test = {0: (0, 0), 1: (0, 1), 2: (1, 1)}[held_out(len(events))]
        end = len(events) - n_valid - n_test
        parts = [events[:end], events[end : end + n_valid], events[end + n_valid :]]
        lines.append("\n".join([user, *("\t".join(part) for part in parts)]) + "\n\n")
    expected = hashlib.sha256("".join(lines).encode()).hexdigest()[:16]
    assert split_hash(*build(tmp_path, sequences)) == expected


def test_split_hash_ignores_what_is_not_the_split(tmp_path, sequences):
    expected = split_hash(*build(tmp_path, sequences))
    for longest in (1, 3):
        assert split_hash(*build(tmp_path, sequences, MAX_ITEM_LIST_LENGTH=longest)) == expected
    # Lines and users in another order give every user and item another internal id.
    assert split_hash(*build(tmp_path / "r", sequences, order="reversed")) == expected
    write_features(tmp_path / "Seq", "Seq", "text", ["i1"], np.ones((1, 2), np.float32))
    parts = build(tmp_path, sequences, MultiModalDataset, modalities=["text"])
    assert split_hash(*parts) == expected


@pytest.mark.parametrize("position", [0, -2, -1])
def test_split_hash_sees_every_part(tmp_path, sequences, position):
    changed = {user: list(events) for user, events in sequences.items()}
    changed["three"][position] = "i4"
    first = split_hash(*build(tmp_path / "a", sequences))
    assert split_hash(*build(tmp_path / "b", changed)) != first


def distinct_histories(lengths):
    """Histories in which event number e is item e + 1, so that an item names one event."""
    offsets = torch.tensor([0, *np.cumsum(lengths)])
    items = torch.arange(1, int(offsets[-1]) + 1)
    return Histories(items, offsets, torch.arange(1, len(lengths) + 1))


def lengths_of(seed, n_users=60, longest=70):
    rng = np.random.default_rng(seed)
    return [1, 2, 3, *np.minimum(longest, 1 + rng.geometric(0.08, n_users))]


def triples(batch):
    """(context items, target) of every target in a batch; checks the padding on the way."""
    for row, targets, length in zip(*(part.tolist() for part in batch)):
        assert 0 not in row[:length] and not any(row[length:]) and not any(targets[length:])
        for t, target in enumerate(targets):
            if target:
                yield row[: t + 1], target


@pytest.mark.parametrize("encoding", ["causal", "bidirectional"])
@pytest.mark.parametrize("unit", ["targets", "histories"])
@pytest.mark.parametrize("max_length", [1, 2, 5, 20])
@pytest.mark.parametrize("batch_size", [1, 7, 64, 100_000])
def test_every_target_once_with_its_context(encoding, unit, max_length, batch_size):
    lengths = lengths_of(seed=max_length)
    histories = distinct_histories(lengths)
    batches = HistoryBatches(
        histories, batch_size=batch_size, max_length=max_length, encoding=encoding, unit=unit
    )
    found = {}
    n_batches = 0
    for batch in batches.epoch(3):
        n_batches += 1
        assert batch.items.shape == batch.targets.shape
        assert batch.items.shape[1] == int(batch.lengths.max()) <= max_length
        assert all(part.dtype == torch.int64 for part in batch)
        for context, target in triples(batch):
            assert target not in found
            found[target] = context
    assert n_batches == len(batches)
    first = histories.offsets.tolist()
    expected = {}
    for begin, end in zip(first[:-1], first[1:]):
        for event in range(begin + 1, end):
            expected[event + 1] = list(range(begin + 1, event + 1))
    assert found.keys() == expected.keys()
    assert batches.n_targets == len(expected)
    for target, prefix in expected.items():
        context = found[target]
        assert context == prefix[-len(context) :]  # the most recent events, in order
        if encoding == "bidirectional":
            assert len(context) == min(len(prefix), max_length)
        else:
            assert len(context) >= min(len(prefix), max(1, max_length // 2))
            # Nothing is cut from a sequence that fits.
            assert len(prefix) > max_length or context == prefix


def test_bidirectional_rows_have_their_target_last():
    batches = HistoryBatches(
        distinct_histories(lengths_of(0)), batch_size=16, encoding="bidirectional"
    )
    for batch in batches.epoch(0):
        position = torch.nonzero(batch.targets)  # [B, 2]
        assert position[:, 0].tolist() == list(range(batch.items.shape[0]))
        assert position[:, 1].tolist() == (batch.lengths - 1).tolist()


def snapshot(batches, epoch):
    return [[part.tolist() for part in batch] for batch in batches.epoch(epoch)]


@pytest.mark.parametrize("encoding", ["causal", "bidirectional"])
def test_order_is_a_function_of_seed_and_epoch(encoding):
    def make(seed):
        return HistoryBatches(
            distinct_histories(lengths_of(0)), batch_size=32, encoding=encoding, seed=seed
        )

    torch.manual_seed(1)
    first = snapshot(make(5), 2)
    state = torch.get_rng_state()
    torch.manual_seed(99)
    again = make(5)
    snapshot(again, 0)  # an earlier epoch must leave no trace
    assert snapshot(again, 2) == first
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)  # the global generator was not used
    assert snapshot(again, 3) != first
    assert snapshot(make(6), 2) != first
    assert snapshot(make(2), 5) != first  # seed and epoch do not merely add up


@pytest.mark.parametrize("unit", ["targets", "histories"])
def test_batches_are_even_and_as_many_every_epoch(unit):
    histories = distinct_histories(lengths_of(3, n_users=2000))
    size = 128
    batches = HistoryBatches(histories, batch_size=size, unit=unit)
    for epoch in range(3):
        seen = []
        for batch in batches.epoch(epoch):
            targets, rows = int((batch.targets > 0).sum()), batch.items.shape[0]
            seen.append(targets if unit == "targets" else rows)
        assert len(seen) == len(batches)
        assert max(seen) <= size + 20 and min(seen) >= size - 40


def test_both_encodings_take_the_same_number_of_steps():
    histories = distinct_histories(lengths_of(4, n_users=500))
    steps = {
        encoding: len(HistoryBatches(histories, batch_size=64, encoding=encoding))
        for encoding in ("causal", "bidirectional")
    }
    n_targets = sum(length - 1 for length in lengths_of(4, n_users=500))
    assert steps == dict.fromkeys(steps, -(-n_targets // 64))


@pytest.mark.parametrize("encoding", ["causal", "bidirectional"])
def test_buckets_waste_little_padding_and_rows_are_mixed(encoding):
    histories = distinct_histories(lengths_of(5, n_users=4000))
    batches = HistoryBatches(histories, batch_size=64, encoding=encoding)
    cells = used = 0
    neighbours = []
    for batch in batches.epoch(0):
        cells += batch.items.numel()
        used += int(batch.lengths.sum())
        neighbours.append(float(batch.lengths.float().mean()))
    assert cells < 1.05 * used
    # Batches of like length do not follow one another: the order of batches is shuffled.
    order = np.corrcoef(neighbours[:-1], neighbours[1:])[0, 1]
    assert abs(order) < 0.2


def test_batch_moves_to_a_device():
    batch = next(HistoryBatches(distinct_histories([4]), batch_size=8).epoch(0))
    moved = batch.to("meta")
    assert all(part.device.type == "meta" for part in moved)
    assert batch.items.tolist() == [[1, 2, 3]] and batch.targets.tolist() == [[2, 3, 4]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"max_length": 0}, "max_length is 0"),
        ({"encoding": "both"}, "encoding is 'both'; expected one of"),
        ({"unit": "rows"}, "unit is 'rows'"),
    ],
)
def test_bad_arguments(settings, message):
    with pytest.raises(ValueError, match=message):
        HistoryBatches(distinct_histories([4]), **{"batch_size": 8, **settings})


def test_nothing_to_predict():
    with pytest.raises(ValueError, match="nothing to predict"):
        HistoryBatches(distinct_histories([1, 1]), batch_size=8)
