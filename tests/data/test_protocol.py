"""Protocols against loops over each user's events."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from recbole.data.dataset import SequentialDataset
from recbole.utils import get_model

from recbole_bbqrec.data.dataset import MultiModalDataset
from recbole_bbqrec.data.histories import Histories
from recbole_bbqrec.data.loaders import create_dataset, split
from recbole_bbqrec.data.protocol.settings import parse
from recbole_bbqrec.data.protocol.split_hash import split_hash
from recbole_bbqrec.data.protocol.targets import describe_targets
from recbole_bbqrec.errors import UserError
from tests.support.data import make_config

DAY = 86_400
START = 15_000 * DAY
TIME_OPTIONS = [
    (target, validation)
    for target in ("last", "first", "all")
    for validation in ("last_item", "by_time", "by_user")
]


def random_events(seed=0, n_users=40, n_items=30, days=12, longest=10):
    """User -> list of (time, item); several events on most days, some at one time."""
    rng = np.random.default_rng(seed)
    events = {}
    for user in range(n_users):
        count = int(rng.integers(1, longest + 1))
        times = START + DAY * rng.integers(0, days, count) + 3600 * rng.integers(0, 2, count)
        items = rng.permutation(n_items)[:count]
        events[f"u{user}"] = [(int(t), f"i{i}") for t, i in sorted(zip(times, items))]
    return events


def write(root, events, lines=None, unix_time=False, name="Tiny"):
    """Write an atomic file; with ``unix_time`` the time column holds positions."""
    rows = [
        f"{user}\t{item}\t" + (f"{place}\t{time}" if unix_time else str(time))
        for user, sequence in events.items()
        for place, (time, item) in enumerate(sequence)
    ]
    if lines is not None:
        lines.shuffle(rows)
    header = "user_id:token\titem_id:token\ttimestamp:float" + "\tunix_time:float" * unix_time
    (root / name).mkdir(parents=True, exist_ok=True)
    (root / name / f"{name}.inter").write_text("\n".join([header, *rows]) + "\n")


def read(root, dataset_class=MultiModalDataset, **options):
    config = make_config(root, "Tiny", modalities=None, **options)
    dataset = create_dataset(config, dataset_class)
    return dataset, split(config, dataset)


def rows_of(part):
    """(user, history, target) of each row, as tokens."""
    rows = part.inter_feat
    users, items = part.field2id_token["user_id"], part.field2id_token["item_id"]
    lists, lengths = rows["item_id_list"].numpy(), rows["item_length"].numpy()
    return [
        (str(users[u]), tuple(map(str, items[h[:n]])), str(items[t]))
        for u, h, n, t in zip(rows["user_id"].numpy(), lists, lengths, rows["item_id"].numpy())
    ]


def day(time):
    return time // DAY


# next_day ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dataset_class", [SequentialDataset, MultiModalDataset])
@pytest.mark.parametrize("unix_time", [False, True])
def test_next_day_asks_for_an_item_of_a_later_day(tmp_path, dataset_class, unix_time):
    events = random_events()
    write(tmp_path, events, unix_time=unix_time)
    _, (train, valid, test) = read(tmp_path, dataset_class, protocol="next_day")
    tested = {user: (history, target) for user, history, target in rows_of(test)}
    validated = {user: (history, target) for user, history, target in rows_of(valid)}
    trained = {}
    for user, history, target in rows_of(train):
        trained.setdefault(user, list(history[:1])).append(target)
    for user, sequence in events.items():
        by_day = {}
        for time, item in sequence:
            by_day.setdefault(day(time), []).append(item)
        days = sorted(by_day)
        if len(days) == 1:
            assert user not in tested and user not in validated
            known = days
        else:
            history, target = tested.pop(user)
            assert target in by_day[days[-1]]
            assert Counter(history) == Counter(i for d in days[:-1] for i in by_day[d])
            place = {item: d for d in days for item in by_day[d]}
            assert [place[i] for i in history] == sorted(place[i] for i in history)
            known = days[:-1]
        if len(days) > 2:
            history, target = validated.pop(user)
            assert target in by_day[days[-2]]
            assert Counter(history) == Counter(i for d in days[:-2] for i in by_day[d])
            known = days[:-2]
        expected = Counter(i for d in known for i in by_day[d])
        assert Counter(trained.pop(user, [])) == (expected if expected.total() > 1 else Counter())
    assert not tested and not validated and not trained


def test_next_day_draws_evenly_and_by_tokens_alone(tmp_path):
    events = {"u0": [(START, "i0"), (START + DAY, "i1")]}
    for user in range(1, 400):
        same_day = [(START + DAY, f"i{item}") for item in (7, 8, 9)]
        events[f"u{user}"] = [(START - DAY, "i0"), (START, "i1"), *same_day]
    events["u0"] = [(START + d * DAY, f"i{d}") for d in range(10)]
    write(tmp_path / "a", events)
    write(tmp_path / "b", dict(reversed(events.items())), np.random.default_rng(0))
    draws = {}
    for folder in ("a", "b"):
        _, (_, _, test) = read(tmp_path / folder, protocol="next_day")
        draws[folder] = {user: target for user, _, target in rows_of(test)}
    assert draws["a"] == draws["b"]
    counts = Counter(target for user, target in draws["a"].items() if user != "u0")
    assert all(100 < counts[item] < 166 for item in ("i7", "i8", "i9"))  # 133 +- 3.5 deviations
    _, (_, _, other) = read(tmp_path / "a", protocol="next_day:1")
    changed = sum(draws["a"][user] != target for user, _, target in rows_of(other))
    assert 200 < changed < 330  # two thirds of 399


# leave-one-out with shuffled ties ------------------------------------------------------------


def test_shuffled_ties_are_leave_one_out_of_another_order(tmp_path):
    events = random_events(1)
    write(tmp_path, events)
    _, (train, valid, test) = read(tmp_path, protocol="leave_one_out_shuffled_ties")
    full = {}
    for user, history, target in rows_of(test):
        full[user] = [*history, target]
    assert set(full) == {user for user, sequence in events.items() if len(sequence) > 2}
    for user, items in full.items():
        time = {item: t for t, item in events[user]}
        assert Counter(items) == Counter(list(time))
        assert [time[i] for i in items] == sorted(time.values())
    assert {(u, h, t) for u, h, t in rows_of(valid)} == {
        (u, tuple(i[:-2]), i[-2]) for u, i in full.items() if len(i) > 3
    }
    file_order = sum(full[u] == [item for _, item in events[u]] for u in full)
    assert file_order < len(full)
    assert split_hash(train, valid, test) != split_hash(*read(tmp_path)[1])


def test_without_ties_shuffling_changes_nothing(tmp_path):
    events = {
        user: [(START + 60 * place, item) for place, (_, item) in enumerate(sequence)]
        for user, sequence in random_events(2).items()
    }
    write(tmp_path, events)
    shuffled = read(tmp_path, protocol="leave_one_out_shuffled_ties")[1]
    assert split_hash(*shuffled) == split_hash(*read(tmp_path)[1])


# a cut in time -------------------------------------------------------------------------------


def expected_by_time(events, quantile, target, validation, validated_users):
    """(history, target) by part, from loops; no two events of a user at one time."""
    times = np.array([t for sequence in events.values() for t, _ in sequence], float)
    cut = np.quantile(times, quantile)
    second = np.quantile(times[times <= cut], quantile)
    parts = {"train": set(), "valid": set(), "test": set()}
    for user, sequence in events.items():
        items = [item for _, item in sequence]
        pairs = [(user, tuple(items[:n]), items[n]) for n in range(1, len(items))]
        after = [pairs[n - 1] for n in range(1, len(items)) if sequence[n][0] > cut]
        before = [pairs[n - 1] for n in range(1, len(items)) if sequence[n][0] <= cut]
        if after:
            chosen = {"last": after[-1:], "first": after[:1], "all": after}[target]
            parts["test"].update(chosen)
        if validation == "last_item":
            parts["valid"].update(before[-1:])
            parts["train"].update(before[:-1])
        elif validation == "by_user":
            parts["valid" if user in validated_users else "train"].update(
                before[-1:] if user in validated_users else before
            )
        else:
            inside = [p for p in before if sequence[len(p[1])][0] > second]
            parts["valid"].update(inside[-1:])
            parts["train"].update(p for p in before if p not in inside)
    return parts


@pytest.mark.parametrize("target, validation", TIME_OPTIONS)
def test_time_split(tmp_path, target, validation):
    rng = np.random.default_rng(3)
    events = {
        f"u{user}": sorted(
            (START + int(t), f"i{i}")
            for t, i in zip(rng.choice(9_000_000, 6, replace=False), rng.permutation(40))
        )
        for user in range(50)
    }
    write(tmp_path, events)
    _, (train, valid, test) = read(
        tmp_path,
        protocol="time:0.8",
        time_target=target,
        time_validation=validation,
        time_validation_users=9,
    )
    validated = {user for user, _, _ in rows_of(valid)}
    assert validation != "by_user" or len(validated) == 9
    expected = expected_by_time(events, 0.8, target, validation, validated)
    for name, part in (("train", train), ("valid", valid), ("test", test)):
        rows = rows_of(part)
        assert len(rows) == len(set(rows)) and set(rows) == expected[name], name
    Histories.from_training_data(train)  # every prefix of a user


# refusals ------------------------------------------------------------------------------------


def positions():
    return {
        user: [(place, item) for place, (_, item) in enumerate(sequence)]
        for user, sequence in random_events(4).items()
    }


@pytest.mark.parametrize("protocol", ["next_day", "leave_one_out_shuffled_ties", "time:0.9"])
@pytest.mark.parametrize(
    "events, words",
    [
        (positions(), ["no time of data set `Tiny` is known", "40 users", "--day_length"]),
        (
            {user: [(START, i) for _, i in seq] for user, seq in random_events(5).items()},
            ["all", "known times", str(START)],
        ),
    ],
)
def test_data_that_cannot_serve_a_protocol(tmp_path, protocol, events, words):
    write(tmp_path, events)
    with pytest.raises(UserError) as error:
        read(tmp_path, protocol=protocol)
    for word in [protocol, *words]:
        assert word in str(error.value)


def test_a_cut_that_leaves_nobody(tmp_path):
    events = {
        f"u{user}": [(START + 60 * n, f"i{n + user % 3}") for n in range(5)] for user in range(9)
    }
    write(tmp_path, events)
    with pytest.raises(UserError, match="leaves .* targets to train, .* to test .* on 1 days"):
        read(tmp_path, protocol="next_day")


@pytest.mark.parametrize("split_args", [{"TS": [0.8, 0.1, 0.1]}, {"RS": [0.8, 0.1, 0.1]}])
def test_a_split_by_global_time_takes_real_times_or_is_refused(tmp_path, split_args):
    eval_args = {
        "split": split_args, "order": "TO", "mode": "full",
        "group_by": "user" if "TS" in split_args else None,
    }  # fmt: skip
    write(tmp_path / "positions", positions())
    with pytest.raises(UserError, match="40 of 40 users .* are positions"):
        read(tmp_path / "positions", eval_args=eval_args)
    events = random_events(6)
    write(tmp_path / "real", events, unix_time=True)
    write(tmp_path / "plain", events)
    real = read(tmp_path / "real", eval_args=eval_args)[1]
    plain = read(tmp_path / "plain", eval_args=eval_args)[1]
    assert [rows_of(part) for part in real] == [rows_of(part) for part in plain]
    time = {(user, item): t for user, sequence in events.items() for t, item in sequence}
    if "RS" in split_args:
        latest = max(time[user, item] for user, _, item in rows_of(real[0]))
        assert latest <= min(time[user, item] for user, _, item in rows_of(real[2]))


@pytest.mark.parametrize("text", ["nextday", "time", "time:1.5", "time:0", "leave_one_out:1", 3])
def test_unknown_protocols(text):
    assert parse(text) is None


# what is known of the targets ----------------------------------------------------------------


@pytest.mark.parametrize("protocol", [None, "next_day", "time:0.7"])
@pytest.mark.parametrize("dataset_class", [SequentialDataset, MultiModalDataset])
def test_targets(tmp_path, protocol, dataset_class):
    events = random_events(7, n_items=120)
    write(tmp_path, events, unix_time=protocol is None)
    dataset, (train, valid, test) = read(tmp_path, dataset_class, protocol=protocol)
    time = {(user, item): t for user, sequence in events.items() for t, item in sequence}
    sequences = {}
    for user, history, target in rows_of(train):
        sequences.setdefault(user, list(history)).append(target)
    pairs = {pair for items in sequences.values() for pair in zip(items, items[1:])}
    trained = {item for items in sequences.values() for item in items}
    for part in (valid, test):
        described = describe_targets(part, train, dataset.events)
        for row, (user, history, target) in enumerate(rows_of(part)):
            then, now = time[user, history[-1]], time[user, target]
            assert described["gap_days"][row] == np.float32((now - then) / DAY)
            assert described["same_day"][row] == (day(now) == day(then))
            assert described["memorized"][row] == ((history[-1], target) in pairs)
            assert described["cold"][row] == (target not in trained)


def test_users_without_times_train_only(tmp_path):
    events = random_events(8)
    known = dict(list(events.items())[:30])
    unknown = {u: [(n, i) for n, (_, i) in enumerate(s)] for u, s in list(events.items())[30:]}
    write(tmp_path, {**known, **unknown})
    for protocol in ("next_day", "time:0.8"):
        _, (train, valid, test) = read(tmp_path, protocol=protocol)
        held_out = {user for part in (valid, test) for user, _, _ in rows_of(part)}
        assert not held_out & set(unknown)
        trained = {u: t for u, _, t in rows_of(train)}  # last row of each
        expected = {u: s[-1][1] for u, s in unknown.items() if len(s) > 1}
        assert {u: t for u, t in trained.items() if u in unknown} == expected


def test_recboles_models_have_their_own_data_sets(tmp_path):
    """DIEN's data set augments rows in its own way; the protocol holds for it, too."""
    assert get_model("DIEN")
    from recbole.data.dataset.customized_dataset import DIENDataset

    events = random_events(9)
    write(tmp_path, events)
    rows = rows_of(read(tmp_path, DIENDataset, protocol="next_day")[1][2])
    assert rows == rows_of(read(tmp_path, SequentialDataset, protocol="next_day")[1][2])
