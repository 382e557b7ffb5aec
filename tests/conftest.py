"""Fixtures shared by the tests: where the synthetic data set is, and a directory to run in."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from recbole_bbqrec.runtime import tune_allocator
from tests.support.runs import CROWDED, EXACT_USERS, TINY, finished_run

tune_allocator()

TRAINED = {"crowded", "card"}  # fixtures of this file that train a whole run


def pytest_collection_modifyitems(items) -> None:
    """Mark as slow what stands in ``end_to_end``, asks for a trained run, or runs "for real"."""
    for item in items:
        trains = TRAINED.intersection(item.fixturenames) or "for_real" in item.name
        if item.path.parent.name == "end_to_end" or trains:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def _log_level():
    """RecBole sets the level of the root logger for good, as option `state` says."""
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    logging.disable(logging.NOTSET)
    yield


@pytest.fixture
def tiny() -> dict:
    return dict(TINY)


@pytest.fixture
def rundir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An empty working directory; log handlers of runs in it are closed afterwards."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler, logging.FileHandler):
            root.removeHandler(handler)
            handler.close()


@pytest.fixture(scope="session")
def crowded(tmp_path_factory):
    """A finished run whose items collide."""
    return finished_run(tmp_path_factory.mktemp("crowded"), "BBQRec", CROWDED)


@pytest.fixture(scope="session")
def card(crowded) -> dict:
    """Report card of the crowded run."""
    from recbole_bbqrec.experiment.report_card.collect import collect

    return collect(crowded, sample=EXACT_USERS)


@pytest.fixture(scope="session")
def contract_runs(tmp_path_factory) -> dict:
    """A tiny run of each model, by name; it is trained when a test first asks for its result."""
    from tests.support.contract import NAMES, ContractRun, write_cut

    data = write_cut(tmp_path_factory.mktemp("cut"))
    return {name: ContractRun(name, tmp_path_factory.mktemp(name), data) for name in NAMES}
