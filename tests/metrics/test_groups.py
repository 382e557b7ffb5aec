"""Metrics by groups of targets, against loops."""

from __future__ import annotations

import numpy as np

from recbole_bbqrec.metrics.groups import by_group, target_groups


def random_targets(n=500):
    rng = np.random.default_rng(0)
    gap = np.where(rng.random(n) < 0.4, 0.0, rng.integers(1, 400, n)).astype(np.float32)
    gap[rng.random(n) < 0.1] = np.nan
    return {
        "gap_days": gap,
        "same_day": gap == 0,
        "memorized": rng.random(n) < 0.2,
        "cold": rng.random(n) < 0.05,
    }


def test_groups_are_those_of_a_loop():
    targets = random_targets()
    expected = {}
    for row, gap in enumerate(targets["gap_days"]):
        names = ["all", "transition in training" if targets["memorized"][row] else
                 "transition not in training"]  # fmt: skip
        if targets["cold"][row]:
            names.append("item not in training")
        if np.isnan(gap):
            names.append("time unknown")
        elif gap == 0:
            names.append("same day")
        else:
            names.append("later day")
            names.append(
                "up to 7 days later" if gap <= 7 else "8 to 30 days later" if gap <= 30
                else "31 to 180 days later" if gap <= 180 else "over 180 days later"
            )  # fmt: skip
        for name in names:
            expected.setdefault(name, []).append(row)
    groups = target_groups(targets)
    assert {name: np.flatnonzero(mask).tolist() for name, mask in groups.items()} == expected
    values = {"recall@10": np.random.default_rng(1).random(500)}
    for name, entry in by_group(values, targets).items():
        assert entry["targets"] == len(expected[name])
        np.testing.assert_allclose(
            entry["metrics"]["recall@10"], np.mean([values["recall@10"][r] for r in expected[name]])
        )


def test_without_times_only_what_training_saw_is_told_apart():
    targets = {key: value for key, value in random_targets().items() if "day" not in key}
    assert list(target_groups(targets)) == [
        "all", "transition in training", "transition not in training", "item not in training",
    ]  # fmt: skip
    assert target_groups({}) == {} and by_group({"recall@10": np.ones(3)}, {}) == {}
