"""Events that stand twice in a file made by hand are said in the log."""

from __future__ import annotations

import logging

import pytest

from recbole_bbqrec.data.loaders import create_dataset
from recbole_bbqrec.model.registry import get_dataset_class
from tests.support.data import make_config, write_inter

NOW = 1_700_000_000  # float32 does not tell 50 seconds apart there


@pytest.mark.parametrize(
    ("extra", "count"),
    [
        ([], 0),
        ([f"u1\ti2\t{NOW + 50}"], 0),  # another time
        ([f"u1\ti3\t{NOW}"], 0),  # another item
        ([f"u1\ti2\t{NOW}"], 1),
        ([f"u1\ti2\t{NOW}", f"u1\ti2\t{NOW}", f"u1\ti2\t{NOW + 50}"], 2),
    ],
)
def test_events_that_stand_twice_are_counted(tmp_path, caplog, extra, count):
    folder = write_inter(tmp_path, "Tiny", {"u1": ["i1", "i2", "i3"], "u2": ["i3", "i2"]})
    file = folder / "Tiny.inter"
    lines = [*file.read_text().splitlines(), f"u1\ti2\t{NOW}", *extra]
    file.write_text("\n".join(lines) + "\n")
    config = make_config(tmp_path, "Tiny")
    with caplog.at_level(logging.WARNING):
        create_dataset(config, get_dataset_class("SASRec"))
    said = [record.message for record in caplog.records if "stand there twice" in record.message]
    assert len(said) == (count > 0)
    if count:
        assert (
            f"{count} of {len(lines) - 1} events" in said[0]
            and f"user u1, item i2, time {NOW}" in said[0]
        )
