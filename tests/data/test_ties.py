"""Statistics of tied events against a loop, and what the log says of them."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from recbole.data.dataset import SequentialDataset

from recbole_bbqrec.data.loaders import create_dataset, split
from recbole_bbqrec.data.protocol.report import log_report, split_report
from tests.data.test_protocol import DAY, START, day, random_events, write
from tests.support.data import make_config


def read(root, **options):
    config = make_config(root, "Tiny", topk=[3], **options)
    dataset = create_dataset(config, SequentialDataset)
    return config, dataset, split(config, dataset)


@pytest.mark.parametrize("numeric", [False, True])
def test_shares_are_those_of_a_loop(tmp_path, numeric):
    events = random_events(3)
    if numeric:  # compared as numbers: 9 before 10
        events = {u: [(t, i[1:]) for t, i in sequence] for u, sequence in events.items()}
    events["positions"] = [(0, "1" if numeric else "i1"), (1, "2" if numeric else "i2")]
    write(tmp_path, events)
    statistics = read(tmp_path)[1].ties
    tied, same, last_tied, last_same, ascending = [], [], [], [], []
    for user, sequence in events.items():
        for place, ((before, first), (now, second)) in enumerate(zip(sequence, sequence[1:])):
            if user == "positions":
                continue
            tied.append(now == before)
            same.append(day(now) == day(before))
            if place == len(sequence) - 2:
                last_tied.append(tied[-1])
                last_same.append(same[-1])
            if tied[-1]:
                ascending.append(int(first) < int(second) if numeric else first < second)
    assert sum(ascending) > 0 and any(tied) and not all(tied)
    assert statistics == {
        "users": len(events),
        "users_without_times": 1,
        **{
            key: pytest.approx(np.mean(values))
            for key, values in [
                ("tied_pairs", tied),
                ("same_day_pairs", same),
                ("tied_last", last_tied),
                ("same_day_last", last_same),
                ("ascending_ties", ascending),
            ]
        },
    }


@pytest.mark.parametrize(
    "gap, options, warned",
    [
        (0, {}, True),
        (DAY, {}, False),
        (0, {"protocol": "leave_one_out_shuffled_ties"}, False),
    ],
)
def test_the_log_warns_where_the_file_decides(tmp_path, caplog, gap, options, warned):
    events = {
        f"u{user}": [(START, f"i{user % 5}"), (START + 3 * DAY, "i7"), (START + 4 * DAY, "i8"),
                     (START + 4 * DAY + gap, "i9")]
        for user in range(10)
    }  # fmt: skip
    write(tmp_path, events)
    config, dataset, parts = read(tmp_path, **options)
    report = split_report(config, dataset, parts)
    with caplog.at_level(logging.INFO):
        log_report(report)
    texts = [record.getMessage() for record in caplog.records]
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert report["protocol"] == options.get("protocol", "leave_one_out")
    assert any(report["protocol"] in text for text in texts)
    assert bool(warnings) == warned
    if warned:
        assert "100.0 % of the users" in warnings[0] and "--protocol=next_day" in warnings[0]
    if gap == 0:
        assert "100.0 % ascend by item id" in "\n".join(texts)


def test_counts_of_what_is_held_out(tmp_path):
    events = random_events(11)
    write(tmp_path, events)
    config, dataset, parts = read(tmp_path, protocol="time:0.6", time_target="all")
    report = split_report(config, dataset, parts)
    train, valid, test = parts
    lengths = [len(part.inter_feat) for part in parts]
    assert list(report["targets"].values()) == lengths
    users, items = dataset.field2id_token["user_id"], dataset.field2id_token["item_id"]
    trained_users = set(users[train.inter_feat["user_id"].numpy()])
    lists = train.inter_feat["item_id_list"].numpy()
    trained = set(items[train.inter_feat["item_id"].numpy()]) | set(items[lists[lists > 0]])
    tested = [users[u] for u in test.inter_feat["user_id"].numpy()]
    assert report["test_users"] == len(set(tested)) < lengths[2]
    assert report["test_users_not_trained"] == len(set(tested) - trained_users)
    targets = items[test.inter_feat["item_id"].numpy()]
    assert report["test_targets_not_trained"] == sum(item not in trained for item in targets)
    assert report["items_not_trained"] == len(items) - 1 - len(trained)
    times = sorted(t for sequence in events.values() for t, _ in sequence)
    assert report["cut"] == np.quantile(times, 0.6)
