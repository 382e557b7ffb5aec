"""Options that are part of a run's identity."""

from __future__ import annotations

import pytest

from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.experiment.store import run_key
from recbole_bbqrec.experiment.store.run_key import counted_options


@pytest.mark.parametrize("model", ["BBQRec", "LETTER", "ESASRec", "VQRec", "MISSRec"])
def test_options_that_came_later_are_no_part_of_the_identity_at_their_defaults(model):
    """Runs stored before there were these options are found again; others are not."""
    resolved = BBQRecConfig(model, "nowhere").resolved
    later = {**run_key._NEW_OF_GENERATIVE, **run_key._NEW_OF_HISTORIES}.keys() & {*resolved}
    if model in ("ESASRec", "VQRec", "MISSRec"):
        later -= {"lr_schedule"}  # they always had it
    assert later
    old = {key: value for key, value in resolved.items() if key not in later}
    assert counted_options(resolved) == counted_options(old)
    assert counted_options({**resolved, "norm_positions": True}) != counted_options(resolved)


@pytest.mark.parametrize(
    ("option", "value", "new"),
    [("history_encoding", "bidirectional", "history_positions"),
     ("recon_reduction", "sum", "mim_reduction")],
)  # fmt: skip
def test_an_option_whose_default_means_something_else_now_is_part_of_it(option, value, new):
    resolved = {**BBQRecConfig("BBQRec", "nowhere").resolved, option: value}
    assert new in counted_options(resolved)
