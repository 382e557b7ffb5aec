"""The extras of setup.cfg are those that ``doctor`` knows."""

from __future__ import annotations

import configparser

from recbole_bbqrec.onboarding.environment import EXTRAS
from tests.support.runs import ROOT


def test_doctor_knows_every_extra_of_users():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    assert set(EXTRAS) == set(parser["options.extras_require"]) - {"dev", "docs"}
