"""Events mapped from disk are those that RecBole reads: same ids, rows, order and metrics."""

from __future__ import annotations

import logging
import os
import re

import numpy as np
import pytest
import torch

from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.data.histories import Histories
from recbole_bbqrec.data.layout import event_numbers
from recbole_bbqrec.data.layout import event_store as event_store_module
from recbole_bbqrec.data.layout import settings as layout_settings
from recbole_bbqrec.data.layout.event_store import EventStore
from recbole_bbqrec.data.loaders import create_dataset, data_loaders
from recbole_bbqrec.data.protocol import events as protocol_events
from recbole_bbqrec.data.protocol.report import split_report
from recbole_bbqrec.data.protocol.split_hash import split_hash
from recbole_bbqrec.data.protocol.targets import describe_targets
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.model.registry import get_dataset_class

HEADER = "user_id:token\titem_id:token\ttimestamp:float"


def write_log(root, seed, *, times=40, real=False, start=1_600_000_000, rows=900):
    """Draw a log in no order, with many ties, repeated events, and users below the cores."""
    rng = np.random.default_rng(seed)
    users, items = rng.integers(0, 70, rows), (60 * rng.random(rows) ** 2).astype(int)
    days = start + 40_000 * rng.integers(0, times, rows)
    lines = [f"u{u:x}\ti{i}\t{t}" for u, i, t in zip(users, items, days)]
    lines += lines[: rows // 30]
    header = HEADER
    if real:
        header += "\tunix_time:float"
        lines = [f"{line}\t{1e9 + 997 * n}" for n, line in enumerate(lines)]
    folder = root / "Log"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "Log.inter").write_text("\n".join([header, *lines]) + "\n")


def config_of(root, layout, model="ESASRec", **options):
    every = {"data_path": str(root), "modalities": [], "data_layout": layout, **options}
    return BBQRecConfig(model, "Log", overrides=every)


def read(root, layout, model="ESASRec", **options):
    config = config_of(root, layout, model, **options)
    dataset = create_dataset(config, get_dataset_class(model))
    return config, dataset, data_loaders(config, dataset)


@pytest.mark.parametrize(
    ("log", "options"),
    [
        ({"seed": 0}, {}),
        ({"seed": 1, "real": True}, {"MAX_ITEM_LIST_LENGTH": 3}),
        ({"seed": 2, "times": 4}, {"user_inter_num_interval": "[3,20]"}),
        ({"seed": 3, "start": 0, "times": 3}, {"item_inter_num_interval": None}),
        ({"seed": 4, "times": 900, "rows": 500},
         {"user_inter_num_interval": "[1,4];(6,inf)", "item_inter_num_interval": "(1,inf)"}),
        ({"seed": 5, "rows": 200},
         {"user_inter_num_interval": None, "item_inter_num_interval": None}),
    ],
)  # fmt: skip
def test_rows_equal_recboles(tmp_path, monkeypatch, caplog, log, options):
    for module, name in ((event_numbers, "_ROWS"), (event_store_module, "_PIECE")):
        monkeypatch.setattr(module, name, 50)  # several pieces
    write_log(tmp_path, **log)
    read_by = {}
    for layout in ("recbole", "mapped"):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            read_by[layout] = read(tmp_path, layout, **options)
        read_by[layout] += ([m for m in caplog.messages if "stand there twice" in m],)
    (_, theirs, their_loaders, their_log), (config, ours, loaders, our_log) = read_by.values()
    assert our_log == their_log and len(our_log) == 1
    for field in ("user_id", "item_id"):
        assert list(ours.field2id_token[field]) == list(theirs.field2id_token[field])
        assert dict(ours.field2token_id[field]) == dict(theirs.field2token_id[field])
    assert ours.ties == theirs.ties
    assert len(ours.inter_feat) == len(theirs.events)
    parts, their_parts = ([each._dataset for each in ll] for ll in (loaders, their_loaders))
    assert split_hash(*parts) == split_hash(*their_parts)
    assert split_report(config, ours, parts) == split_report(config, theirs, their_parts)
    mine, other = (Histories.from_training_data(p[0]) for p in (parts, their_parts))
    for name in ("items", "offsets", "users"):
        assert getattr(mine, name).tolist() == getattr(other, name).tolist()
    assert len(parts[0]) == len(their_parts[0])
    assert parts[0].item_counter == their_parts[0].item_counter
    assert parts[0].user_counter == their_parts[0].user_counter
    assert len(loaders[0]) == len(their_loaders[0])
    with pytest.raises(UserError, match="no training rows, but something asks for 'item_length'"):
        parts[0].inter_feat["item_length"]
    for part, its, loader, its_loader in list(zip(parts, their_parts, loaders, their_loaders))[1:]:
        assert part.event_index.tolist() == its.event_index.tolist()
        batches = list(zip(loader, its_loader))
        assert sum(len(batch[0]) for batch, _ in batches) == len(its) == len(part)
        for (a, _, _, target), (b, _, _, its_target) in batches:
            torch.testing.assert_close(target, its_target, rtol=0, atol=0)
            for field in a:
                torch.testing.assert_close(a[field], b[field], rtol=0, atol=0)
        described = describe_targets(part, parts[0], ours.events)
        expected = describe_targets(its, their_parts[0], theirs.events)
        assert list(described) == list(expected)
        for name, values in expected.items():
            np.testing.assert_array_equal(described[name], values)
    users = np.arange(1, ours.user_num)
    for a, b in zip(ours.file_events.spans(users), theirs.file_events.spans(users)):
        assert a.tolist() == b.tolist()
    for name in ("items", "users", "earlier", "times", "days", "known"):
        found, expected = (getattr(each.file_events, name) for each in (ours, theirs))
        np.testing.assert_array_equal(found, expected)


def test_times_that_float32_cannot_tell_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(event_numbers, "EXACT_IN_FLOAT32", 100)
    monkeypatch.setattr("recbole_bbqrec.data.event_times.EXACT_IN_FLOAT32", 100)
    write_log(tmp_path, 0)
    path = tmp_path / "Log" / "Log.inter"
    lines = path.read_text().splitlines()
    close = [f"{line.rpartition(chr(9))[0]}\t{1.7e9 + n // 3}" for n, line in enumerate(lines[1:])]
    path.write_text("\n".join([HEADER, *close]) + "\n")
    rows = [read(tmp_path, layout)[2][2]._dataset.inter_feat for layout in ("recbole", "mapped")]
    assert rows[0]["user_id"].tolist() == rows[1]["user_id"].tolist()


def test_a_catalogue_adds_its_items(tmp_path):
    write_log(tmp_path, 0)
    (tmp_path / "Log" / "Log.catalogue.txt").write_text("i1\nnew\n")
    hashes = set()
    for layout in ("recbole", "mapped"):
        _, dataset, loaders = read(tmp_path, layout)
        assert dataset.item_num == dataset.field2token_id["item_id"]["new"] + 1
        assert str(dataset.field2id_token["item_id"][-1]) == "new"
        hashes.add(split_hash(*(loader._dataset for loader in loaders)))
    assert len(hashes) == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"model": "MMSASRec", "modalities": ["text"]}, "trains on one row for each prefix"),
        ({"protocol": "next_day"}, "`protocol` is next_day; of mapped events only leave_one_out"),
        ({"eval_args": {"split": {"RS": [8, 1, 1]}}}, "`eval_args` is .*only leave_one_out"),
        ({"val_interval": {"timestamp": "[0,inf)"}}, "`val_interval` is"),
        ({"load_col": {"inter": "*"}}, "`load_col` is"),
        ({"load_col": {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id"]}},
         "loads other files"),
        ({"encoding": "latin-1"}, "`encoding` is latin-1"),
    ],
)  # fmt: skip
def test_what_cannot_be_mapped(tmp_path, monkeypatch, caplog, options, says):
    write_log(tmp_path, 0)
    message = rf"`data_layout` is mapped, but .*{says}.*Use --data_layout=recbole"
    with pytest.raises(UserError, match=message):
        layout_settings.is_mapped(config_of(tmp_path, "mapped", **options))
    monkeypatch.setattr(layout_settings, "LARGE", 100)
    config = config_of(tmp_path, "auto", **options)
    with caplog.at_level(logging.INFO):
        assert not layout_settings.is_mapped(config)
    assert re.search(f"Log.inter is large and stays in memory, because .*{says}", caplog.text)


def test_large_files_are_mapped_unless_told_otherwise(tmp_path, monkeypatch):
    write_log(tmp_path, 0)
    assert not layout_settings.is_mapped(config_of(tmp_path, "auto"))
    size = (tmp_path / "Log" / "Log.inter").stat().st_size
    monkeypatch.setattr(layout_settings, "LARGE", size)
    assert layout_settings.is_mapped(config_of(tmp_path, "auto"))
    assert not layout_settings.is_mapped(config_of(tmp_path, "recbole"))
    with pytest.raises(UserError, match="`data_layout` is 'disk'; expected"):
        config_of(tmp_path, "disk")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("u1\ti1\tsoon", "no time that is a finite number; the first is event 931 with 'soon'"),
        ("u1\ti1\tnan", "no time that is a finite number"),
        ("u1\ti1\t1\t2", "line 932 has 4 fields"),
    ],
)
def test_faulty_lines_are_named(tmp_path, line, says):
    write_log(tmp_path, 0)
    with open(tmp_path / "Log" / "Log.inter", "a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=says):
        read(tmp_path, "mapped")
    assert not [path for path in (tmp_path / ".mapped").glob("*") if path.suffix != ".lock"]


def test_events_without_a_user_are_left_out(tmp_path, caplog):
    write_log(tmp_path, 0)
    with open(tmp_path / "Log" / "Log.inter", "a") as file:
        file.write("\ti1\t5\nNA\ti2\t6\nnull\ti2\t7\n")
    with caplog.at_level(logging.WARNING):
        _, ours, _ = read(tmp_path, "mapped")
        assert "3 events have no user or no item" in caplog.text
        assert len(ours.events) == len(read(tmp_path, "recbole")[1].events)


def stores(root):
    return sorted(path for path in root.iterdir() if path.is_dir())


def test_a_changed_file_is_mapped_anew(tmp_path):
    write_log(tmp_path, 0)
    folder = tmp_path / "kept"
    first = read(tmp_path, "mapped", mapped_folder=str(folder))[1]
    (made,) = stores(folder)
    stamp = (made / "items.npy").stat().st_mtime_ns
    read(tmp_path, "mapped", mapped_folder=str(folder), MAX_ITEM_LIST_LENGTH=3)
    assert stores(folder) == [made] and (made / "items.npy").stat().st_mtime_ns == stamp
    path = tmp_path / "Log" / "Log.inter"
    before = path.stat()
    path.write_text(path.read_text().replace("\ti1\t", "\ti2\t", 1))  # same size, same time
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    second = read(tmp_path, "mapped", mapped_folder=str(folder))[1]
    assert len(stores(folder)) == 2
    assert first.events.items.tolist() != second.events.items.tolist()
    read(tmp_path, "mapped", mapped_folder=str(folder), user_inter_num_interval="[6,inf)")
    assert len(stores(folder)) == 3


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "facts"])
def test_damaged_arrays_are_noticed_and_made_anew(tmp_path, caplog, damage):
    write_log(tmp_path, 0)
    expected = read(tmp_path, "mapped")[1].events.items.tolist()
    (made,) = stores(tmp_path / ".mapped")
    path = made / ("facts.json" if damage == "facts" else "items.npy")
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    damaged = {"flip": content, "cut": content[:-7], "facts": b"{", "remove": b""}[damage]
    path.unlink() if damage == "remove" else path.write_bytes(damaged)
    with pytest.raises(UserError, match=f"{path.name} cannot be read.*Remove the folder"):
        EventStore.open(made)
    (made.parent / f".{made.name}.killed00.tmp").mkdir()  # as a process that was killed leaves it
    with caplog.at_level(logging.WARNING):
        assert read(tmp_path, "mapped")[1].events.items.tolist() == expected
    assert "It is made anew now" in caplog.text
    EventStore.open(made)
    assert stores(made.parent) == [made]


def test_nothing_left_and_no_room(tmp_path):
    write_log(tmp_path, 0)
    with pytest.raises(UserError, match="is empty after filtering: `user_inter_num_interval` is"):
        read(tmp_path, "mapped", user_inter_num_interval="[900,inf)")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write .*file"):
        read(tmp_path, "mapped", mapped_folder=str(tmp_path / "file"))


def test_unknown_times_stay_unknown(tmp_path):
    """A user whose times are all positions has none, whatever the others have."""
    times = np.array([0.0, 1, 2, 5, 1e9, 1e9 + 1])
    offsets = np.array([0, 3, 6])
    store = EventStore(*[np.zeros(6, np.int32)] * 7, facts={})
    store = EventStore(np.arange(1, 7, dtype=np.int32), offsets, times, *[store.items] * 4, {})
    found = event_store_module.StoredEvents(store, 86400.0)
    users = np.repeat([1, 2], 3)
    reference = protocol_events.order_events(users, store.items, np.arange(6), times, 86400.0)
    np.testing.assert_array_equal(found.times, reference.times)
    assert np.isnan(found.times).tolist() == [True] * 3 + [False] * 3
