"""Errors that stop several processes before they have met; the rest is in test_processes."""

from __future__ import annotations

import socket

import pytest
import torch

from recbole_bbqrec.cli.main import main
from recbole_bbqrec.config.processes import check_shareable
from recbole_bbqrec.data.histories import HistoryBatch
from recbole_bbqrec.distributed import group, sums
from recbole_bbqrec.errors import UserError

RUN = ["run", "--model=BBQRec", "--dataset=Mini"]


@pytest.fixture
def variables(monkeypatch, rundir):
    """Set what torchrun sets for the first of two processes."""

    def set_all(**changes: str) -> None:
        values = {
            "RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0",
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29400", **changes,
        }  # fmt: skip
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return set_all


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"])
def test_variables_of_torchrun_must_be_there(name, variables, capsys, rundir):
    variables(**{name: ""})
    assert main(RUN) == 2
    error = capsys.readouterr().err
    assert f"but {name} is ''" in error and "torchrun" in error and error.count("error: ") == 1
    assert not list(rundir.iterdir())


def test_a_number_must_be_one(variables, capsys):
    variables(MASTER_PORT="x")
    assert main(RUN) == 2
    assert "but MASTER_PORT is 'x'" in capsys.readouterr().err


def test_a_port_in_use_is_named(variables, capsys, rundir):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        variables(MASTER_PORT=str(port))
        assert main(RUN) == 2
        error = capsys.readouterr().err
    assert f"cannot meet at 127.0.0.1:{port}" in error and "--master_port" in error
    assert not list(rundir.iterdir())


def test_another_process_than_the_first_is_silent(variables, capsys):
    variables(RANK="1", MASTER_PORT="x")
    assert main(RUN) == 2
    assert not capsys.readouterr().err


def test_other_verbs_run_alone(variables, capsys):
    variables()
    assert main(["compare", "--models=BBQRec", "--datasets=Mini"]) == 2
    assert "`compare` runs in one process, and WORLD_SIZE is 2" in capsys.readouterr().err


def test_a_process_alone_meets_nobody():
    values = torch.arange(4.0)
    assert group.world_size() == 1 and group.is_main() and not group.running()
    assert sums.total(values) is values and sums.rows_of_all(values, 4) is values
    assert sums.of_main(values) is values and sums.part() == slice(None)
    assert group.from_main(lambda: 3) == 3 and group.gathered(3) == [3]
    device = torch.device("cuda")
    assert group.device_of(device) is device


@pytest.mark.parametrize("size", [2, 3, 5])
def test_processes_share_the_rows_of_a_batch_and_its_targets(size, monkeypatch):
    lengths = torch.tensor([1, 2, 3, 4])
    items = torch.arange(1, 17).view(4, 4) * (torch.arange(4) < lengths[:, None])
    whole = HistoryBatch(items, items + 100 * (items > 0), lengths)
    assert whole.mine() is whole and whole.share == 1
    monkeypatch.setattr(group, "running", lambda: True)
    parts = []
    for number in range(size):
        monkeypatch.setattr(group, "rank", lambda number=number: number)
        monkeypatch.setattr(sums, "part", lambda number=number: slice(number, None, size))
        parts.append(whole.mine())
    assert sum(part.share for part in parts) == pytest.approx(1)
    found = sorted(int(first) for part in parts if part.share for first in part.items[:, 0])
    assert found == items[:, 0].tolist()  # every row once
    for part in parts:
        assert part.items.shape[1] == int(part.lengths.max())
        targets = int((part.targets > 0).sum())
        assert part.share == (pytest.approx(targets / 10) if part.share else 0)
        assert targets > 0 and part.to("cpu").share == part.share


@pytest.mark.parametrize(
    ("values", "n_histories", "said"),
    [
        ({"train_batch_size": 3}, 9, "4 processes, but 3 train_batch_size"),
        ({"tokenizer_batch_size": 2}, 9, "4 processes, but 2 tokenizer_batch_size"),
        ({}, 3, "4 processes, but 3 training histories"),
        ({"enable_scaler": True}, 9, "`enable_scaler` is True"),
    ],
)
def test_what_cannot_be_shared_is_refused(values, n_histories, said, monkeypatch):
    config = {"train_batch_size": 9, "enable_scaler": False, **values}
    check_shareable(config, n_histories)  # one process
    monkeypatch.setattr(group, "world_size", lambda: 4)
    with pytest.raises(UserError, match=said):
        check_shareable(config, n_histories)
