"""The warning of signals whose codes have collapsed."""

from __future__ import annotations

import torch

from recbole_bbqrec.tokenizer.collisions import codes_used
from recbole_bbqrec.trainer.phases.catalogue_ids import collapsed, crowded


def codes_of(*used, n=100):
    """``n`` items and [PAD]; signal m chooses ``used[m][l]`` codes in turn at level l."""
    items = torch.arange(n + 1)
    levels = [[items % n for n in signal] for signal in used]
    codes = torch.stack([torch.stack(level, 1) for level in zip(*levels)], 1)
    codes[0] = 63  # [PAD] does not count
    return codes


def test_used_codes_are_counted_by_level_and_signal():
    codes = codes_of((30, 12), (3, 1))
    assert codes_used(codes).tolist() == [[30, 3], [12, 1]]
    assert [[len(set(codes[1:, level, m].tolist())) for m in (0, 1)] for level in (0, 1)] == [
        [30, 3], [12, 1],
    ]  # fmt: skip
    assert codes_used(torch.zeros(1, 2, 2).long()).tolist() == [[0, 0], [0, 0]]


def test_a_signal_under_a_tenth_of_its_codes_is_named_with_the_cure():
    (message,) = collapsed(codes_of((30, 12), (3, 1)), ("id", "text"), 64)
    assert "signal text uses 3 / 1 of 64 codes" in message and "`mim_reduction: mean`" in message
    assert not collapsed(codes_of((30, 12), (12, 1)), ("id", "text"), 64)  # 13 of 128
    # A hundred items cannot use a thousand codes.
    assert not collapsed(codes_of((100, 100), (12, 12)), ("id", "text"), 1000)


def test_prefixes_of_very_many_items_are_warned_of():
    """Ranking looks at every item under a prefix."""
    few = codes_of((2, 400), (2, 400), n=400)
    (message,) = crowded(few)
    assert "400 items share 2 prefixes of 1 levels" in message and "`codebook_size`" in message
    assert not crowded(codes_of((40, 400), (40, 400), n=400))
    assert not crowded(codes_of((2,), n=400))  # one level: nothing is shared before it
