"""Checkpoints: safe to load, atomic, refused when damaged; random state survives the trip."""

from __future__ import annotations

import pickle
import random

import numpy as np
import pytest
import torch

from recbole_bbqrec.atomic import atomic_path
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.run_files import checkpoint
from recbole_bbqrec.run_files.checkpoint import (
    load_checkpoint,
    load_model_file,
    load_weights,
    random_state,
    save_checkpoint,
    set_random_state,
)


def test_round_trip_with_weights_only(tmp_path):
    path = tmp_path / "a.pth"
    save_checkpoint({"x": torch.arange(3), "n": {"a": [1, 2.5, None, "t"]}}, path)
    plain = torch.load(path, weights_only=True)
    assert plain["n"] == {"a": [1, 2.5, None, "t"]}
    assert torch.equal(load_checkpoint(path)["x"], torch.arange(3))


@pytest.mark.parametrize("keep", [0, 10, 200])
def test_truncated_file_is_refused_whole(tmp_path, keep):
    path = tmp_path / "a.pth"
    save_checkpoint({"x": torch.randn(100)}, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match="a.pth"):
        load_checkpoint(path)


def test_a_pickle_is_not_executed(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    path = tmp_path / "trap.pth"
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(UserError, match="trap.pth"):
        load_checkpoint(path)
    torch.save(Trap(), path)
    with pytest.raises(UserError, match="trap.pth"):
        load_checkpoint(path)
    assert not (tmp_path / "sprung").exists()


def test_missing_and_foreign_files(tmp_path):
    with pytest.raises(UserError, match="no checkpoint"):
        load_checkpoint(tmp_path / "none.pth")
    torch.save({"weights": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="not a checkpoint"):
        load_checkpoint(tmp_path / "other.pth")


@pytest.mark.parametrize("key", ["format", "config", "model", "split_hash", "phase", "state_dict"])
@pytest.mark.parametrize("value", [torch.zeros(3), 1.5, None, ["text"]], ids=repr)
def test_a_value_of_another_type_is_one_error(tmp_path, key, value):
    """A tensor where a text is expected: to compare the two is an error of torch."""
    path = tmp_path / "a.pth"
    torch.save({"format": 1, "state_dict": {}, key: value}, path)
    with pytest.raises(UserError, match=rf"a\.pth.*({key}|not a checkpoint)"):
        load_checkpoint(path)


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("disk full")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_random_state_round_trip(tmp_path):
    def draw():
        return torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()

    save_checkpoint({"random": random_state()}, tmp_path / "r.pth")
    first = draw()
    assert draw() != first
    set_random_state(load_checkpoint(tmp_path / "r.pth")["random"])
    assert draw() == first


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([torch.nn.Linear(3, 2)], r"1\.bias is absent there and \(4,\) here"),
        ([torch.nn.Linear(3, 2), torch.nn.Linear(2, 5)], r"is \(5,\) there and \(4,\) here"),
    ],
)
def test_weights_of_another_shape_are_refused_whole(layers, message):
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 4))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError, match=message):
        load_weights(model, torch.nn.Sequential(*layers).state_dict(), "old.pth")
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_weights_of_the_same_shape_are_loaded():
    model, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    load_weights(model, other.state_dict(), "same.pth")
    assert torch.equal(model.weight, other.weight)


def test_one_changed_bit_of_a_weight_is_refused(tmp_path):
    """torch.load reads the changed weight without a word: the test shows that, too."""
    path = tmp_path / "a.pth"
    weights = torch.arange(1000, dtype=torch.float32)
    save_checkpoint({"config": "", "state_dict": {"w": weights}}, path)
    content = bytearray(path.read_bytes())
    content[content.index(weights.numpy().tobytes()) + 2000] ^= 1
    path.write_bytes(content)
    changed = torch.load(path, weights_only=True)["state_dict"]["w"]
    assert not torch.equal(changed, weights)
    with pytest.raises(UserError, match="a.pth cannot be read: .* the checksum of .* does not fit"):
        load_checkpoint(path)


MODEL = {"config": "model: X", "state_dict": {}, "split_hash": "0", "features": {}}


@pytest.mark.parametrize(
    "changes",
    [
        {"config": None}, {"state_dict": None},
        {"features": {"text": {}}}, {"features": 3}, {"features": {"text": 1}},
        {"split_hash": torch.zeros(2)}, {"other_parameter": float("nan")},
    ],
)  # fmt: skip
def test_a_model_file_with_a_lost_or_changed_key_is_refused(tmp_path, changes):
    path = tmp_path / "m.pth"
    save_checkpoint(MODEL, path)
    assert load_model_file(path)["config"] == "model: X"
    state = {key: value for key, value in {**MODEL, **changes}.items() if value is not None}
    save_checkpoint(state, path)
    with pytest.raises(UserError, match="m.pth"):
        load_model_file(path)


def test_weights_of_another_form_are_refused(tmp_path):
    for weights in (3, {"weight": "text"}, {"weight": torch.zeros(3)}):
        with pytest.raises(UserError, match="w.pth"):
            load_weights(torch.nn.Linear(1, 1, bias=False), weights, tmp_path / "w.pth")


@pytest.mark.parametrize("number", [1, 4, 8, 30])  # of the write that is interrupted
def test_an_interrupted_write_ends_as_an_interrupt_and_leaves_the_old_file(
    tmp_path, monkeypatch, number
):
    path, writes = tmp_path / "a.pth", []
    save_checkpoint({"x": 1}, path)

    def write(self, data):
        writes.append(data)
        if len(writes) == number:
            raise KeyboardInterrupt
        return self._file.write(data)

    monkeypatch.setattr(checkpoint._Guarded, "write", write)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint({"x": torch.zeros(1000), "y": torch.ones(100_000)}, path)
    assert len(writes) >= number
    assert load_checkpoint(path)["x"] == 1 and list(tmp_path.iterdir()) == [path]
