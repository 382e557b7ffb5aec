"""A data set from one's own files: what is written, alignment, faults, and training on it."""

from __future__ import annotations

import errno
import gzip
import json
import os
import shlex
from pathlib import Path
from types import SimpleNamespace

import duckdb
import numpy as np
import pandas as pd
import pytest
import yaml
from recbole.data.dataset import SequentialDataset

from recbole_bbqrec.answers.recommender import Recommender
from recbole_bbqrec.atomic import sha256_of
from recbole_bbqrec.cli.main import main
from recbole_bbqrec.data.dataset import MultiModalDataset
from recbole_bbqrec.data.loaders import create_dataset, split
from recbole_bbqrec.data.protocol.split_hash import split_hash
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.prepare.atomic_files import Former
from recbole_bbqrec.prepare.tables import build as own
from recbole_bbqrec.prepare.tables import query
from recbole_bbqrec.prepare.tables.build import OwnSource, prepare_own
from recbole_bbqrec.prepare.tables.events import EventOptions
from recbole_bbqrec.prepare.tables.features import FeatureFile
from recbole_bbqrec.prepare.tables.items import ItemOptions
from recbole_bbqrec.prepare.tables.query import Table
from recbole_bbqrec.prepare.tables.text_store import TextStore
from recbole_bbqrec.quick_start import load_run, run
from recbole_bbqrec.run_files.kept_data import ReadFiles
from tests.support.data import make_config
from tests.support.runs import ROOT, TINY

N_ITEMS, ALL = 30, EventOptions(user_core=1, item_core=1)


@pytest.fixture
def shop(tmp_path):
    """A shop's files; item k's features say k, and its row is nowhere near k."""
    rng = np.random.default_rng(5)
    folder = tmp_path / "shop"
    folder.mkdir()
    tokens = [f"sku-{k}" for k in range(N_ITEMS)]
    lines = ["customer,sku,time"]
    for user in range(40):
        # Item 29 is never bought.
        for time, item in enumerate(rng.permutation(N_ITEMS - 1)[: rng.integers(5, 12)]):
            lines.append(f"c{user},{tokens[item]},{1000 * user + time}")
    head, body = lines[0], lines[1:]
    rng.shuffle(body)
    (folder / "events.csv").write_text("\n".join([head, *body]) + "\n")
    order = rng.permutation(N_ITEMS)
    (folder / "items.jsonl").write_text(
        "".join(json.dumps({"sku": tokens[k], "title": f"thing <b>no</b> {k}"}) + "\n"
                for k in order)
    )  # fmt: skip
    np.save(folder / "by_items_file.npy", numbered(order))
    listed = rng.permutation(N_ITEMS)
    np.save(folder / "listed.npy", numbered(listed))
    (folder / "listed.txt").write_text("".join(tokens[k] + "\n" for k in listed))
    return folder


def numbered(order):
    """Features from which an item can be read off: k + 1 and its square."""
    k = np.asarray(order, dtype=np.float32) + 1
    return np.stack([k, k * k], axis=1)


def source(shop, *features, items="items.jsonl"):
    files = tuple(FeatureFile.parse(text.replace("@", f"{shop}/")) for text in features)
    return OwnSource(shop / "events.csv", shop / items if items else None, files)


def aligned(folder, name, modality):
    tokens = (folder / f"{name}.{modality}.items.txt").read_text().split()
    return dict(zip(tokens, np.load(folder / f"{name}.{modality}.npy")[:, 0].tolist()))


def test_files(shop, tmp_path):
    report = prepare_own("Own", source(shop, "look=@listed.npy,@listed.txt"), tmp_path / "d")
    folder = tmp_path / "d" / "Own"
    used = {f"sku-{k}" for k in range(N_ITEMS - 1)}
    lines = (folder / "Own.inter").read_text().splitlines()
    assert lines[0] == "user_id:token\titem_id:token\ttimestamp:float\tunix_time:float"
    assert len(lines) == report.interactions + 1
    assert {line.split("\t")[1] for line in lines[1:]} == used
    titles = dict(line.split("\t") for line in (folder / "Own.titles.tsv").read_text().splitlines())
    assert titles.pop("item_id") == "title"
    assert titles == {token: f"thing no {token[4:]}" for token in used}
    described = yaml.safe_load((folder / "Own.features.yaml").read_text())
    assert described["look"]["encoder"] == "listed.npy (given)"
    assert described["text"]["encoder"].startswith("TF-IDF")
    assert described["text"]["recipe"].startswith("title joined")
    assert set(aligned(folder, "Own", "text")) == used
    assert [path.name for path in (tmp_path / "d").iterdir()] == ["Own"]
    printed = report.table()
    assert "1  rows of look features whose item has no interaction left" in printed
    assert "--modalities=[text,look]" in printed and "inter_num_interval" not in printed


@pytest.mark.slow
def test_the_whole_catalogue_is_kept_and_the_events_are_those_of_the_core(shop, tmp_path):
    cores = {"user_core": 1, "item_core": 11}
    core, every = EventOptions(**cores), EventOptions(**cores, keep_all_items=True)
    features = ("look=@listed.npy,@listed.txt",)
    prepare_own("Core", source(shop, *features), tmp_path, core)
    report = prepare_own("Every", source(shop, *features), tmp_path, every)
    core, every = tmp_path / "Core", tmp_path / "Every"
    assert (core / "Core.inter").read_bytes() == (every / "Every.inter").read_bytes()
    kept = {line.split("\t")[1] for line in (core / "Core.inter").read_text().splitlines()[1:]}
    tokens = [f"sku-{k}" for k in range(N_ITEMS)]  # the last was never bought
    assert 5 < len(kept) < N_ITEMS - 1 and report.others == N_ITEMS - len(kept)
    assert sorted((every / "Every.catalogue.txt").read_text().split()) == sorted(tokens)
    events = {tuple(line.split(",")[:2]) for line in (shop / "events.csv").open()} - {
        ("customer", "sku")
    }
    apart = [tuple(line.split("\t")) for line in (every / "Every.seen.tsv").read_text().split("\n")]
    assert set(apart[1:-1]) == {(user, item) for user, item in events if item not in kept}
    assert apart[1:-1] == sorted(set(apart[1:-1])) and not (core / "Core.seen.tsv").exists()
    assert set(aligned(every, "Every", "look")) == set(aligned(every, "Every", "text")) == {*tokens}
    assert set(aligned(core, "Core", "look")) == kept
    sets = []
    for name in ("Core", "Every"):
        config = make_config(tmp_path, name, modalities=["look"], user_inter_num_interval="[1,inf)")
        dataset = create_dataset(config, MultiModalDataset)
        plain = create_dataset(config, SequentialDataset)
        assert plain.field2id_token["item_id"].tolist() == dataset.item_tokens
        assert dataset.item_features("look").present[1:].all()
        sets.append((dataset, split_hash(*split(config, dataset))))
    (small, first), (large, second) = sets
    assert large.item_tokens[: small.item_num] == small.item_tokens and large.item_num == 31
    assert first != second and large.inter_num == small.inter_num
    prepare_own("Every", source(shop), tmp_path, EventOptions(**cores), force=True)
    assert not (every / "Every.catalogue.txt").exists() and not (every / "Every.seen.tsv").exists()


def test_events_that_the_core_leaves_out_are_seen(shop, tmp_path):
    cores = {"user_core": 1, "item_core": 11}
    prepare_own("Own", source(shop), tmp_path, EventOptions(**cores, keep_all_items=True))
    config = make_config(tmp_path, "Own", modalities=[], user_inter_num_interval="[1,inf)",
                         item_inter_num_interval="[1,inf)")  # fmt: skip
    files = ReadFiles.of(config)
    assert "Own.seen.tsv" in files.states  # a run keeps it
    dataset = create_dataset(config, MultiModalDataset)
    known = Recommender(config, SimpleNamespace(n_items=dataset.item_num), dataset, [])
    bought: dict[str, set[str]] = {user: set() for user in known.user_ids}
    for line in (shop / "events.csv").read_text().splitlines()[1:]:
        user, item, _ = line.split(",")
        if user in bought:
            bought[user].add(item)
    for user, seen in zip(bought, known.seen_by(list(bought))):
        assert set(known.item_tokens[seen[seen > 0]]) == bought[user]
    (tmp_path / "Own" / "Own.seen.tsv").write_text("damaged")
    again = Recommender(config, known.model, dataset, [])
    with pytest.raises(UserError, match="Own.seen.tsv cannot be read"):
        again.seen_by(["c1"])


def test_items_never_bought_get_ids_and_can_be_recommended_for_real(shop, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepare_own("Own", source(shop, "look=@listed.npy,@listed.txt"), tmp_path / "dataset",
                EventOptions(user_core=1, item_core=11, keep_all_items=True))  # fmt: skip
    options = {**TINY, "data_path": "dataset", "modalities": ["text", "look"], "epochs": 1,
               "tokenizer_epochs": 2, "user_inter_num_interval": "[1,inf)",
               "item_inter_num_interval": "[1,inf)"}  # fmt: skip
    loaded = load_run(run("BBQRec", "Own", overrides=options)["files"]["model"])
    assert set(loaded.semantic_ids()["item"]) == {f"sku-{k}" for k in range(N_ITEMS)}
    top = loaded.recommend(histories=[["sku-29"]], k=1, allow=["sku-29"])
    assert top[["item", "title"]].values.tolist() == [["sku-29", "thing no 29"]]
    words = ["recommend", str(next(Path("saved").glob("BBQRec-*/"))), "--output=recs.csv"]
    assert (
        main([*words, "--where=title contains '</b> 29'"]) == 0
    )  # the run has the table's columns
    assert set(pd.read_csv("recs.csv")["item"]) == {"sku-29"}


def test_sequences_follow_time(shop, tmp_path):
    prepare_own("Own", source(shop), tmp_path)
    rows = (line.split(",") for line in (shop / "events.csv").read_text().splitlines()[1:])
    expected = {}
    for user, item, time in sorted(rows, key=lambda row: int(row[2])):
        expected.setdefault(user, []).append((item, time))
    found = {}
    for line in (tmp_path / "Own" / "Own.inter").read_text().splitlines()[1:]:
        user, item, position, time = line.split("\t")
        assert int(position) == len(found.setdefault(user, []))
        found[user].append((item, time))
    assert found == expected


def test_features_are_of_their_items(shop, tmp_path):
    features = ("a=@by_items_file.npy", "b=@listed.npy,@listed.txt")
    prepare_own("Own", source(shop, *features), tmp_path)
    expected = {f"sku-{k}": k + 1.0 for k in range(N_ITEMS - 1)}
    assert aligned(tmp_path / "Own", "Own", "a") == expected
    assert aligned(tmp_path / "Own", "Own", "b") == expected


def test_bad_item_rows_keep_their_places(shop, tmp_path):
    lines = (shop / "items.jsonl").read_text().splitlines()
    matrix = np.load(shop / "by_items_file.npy")
    lost = json.loads(lines[3])["sku"]
    # A row that is no JSON, one without an item, one that repeats the first, each with features.
    lines[3:3] = ["{", json.dumps({"title": "x"}), "", lines[0]]
    del lines[7]
    (shop / "items.jsonl").write_text("\n".join(lines))
    matrix = np.concatenate([matrix[:3], np.full((3, 2), 99.0), matrix[4:]])
    np.save(shop / "by_items_file.npy", matrix.astype(np.float64))
    report = prepare_own("Own", source(shop, "a=@by_items_file.npy"), tmp_path)
    expected = {f"sku-{k}": k + 1.0 for k in range(N_ITEMS - 1)}
    del expected[lost]
    assert aligned(tmp_path / "Own", "Own", "a") == expected
    assert np.load(tmp_path / "Own" / "Own.a.npy").dtype == np.float32
    count = report.ledger.count
    assert count("unreadable rows of the items file") == 1
    assert count("rows of the items file without an item") == 1
    assert count("later rows of the items file for the same item") == 1
    assert count("items without a row in the items file") == 1
    assert count("items without a features") == 1
    with pytest.raises(UserError, match=r"1 unreadable rows of the items file \(first: line 4\)"):
        prepare_own("No", source(shop), tmp_path, EventOptions(strict=True))
    assert not (tmp_path / "No").exists()


def test_rows_without_use_are_counted(shop, tmp_path):
    matrix = np.load(shop / "listed.npy")
    listed = (shop / "listed.txt").read_text().split()
    bought = [row for row, token in enumerate(listed) if token != "sku-29"]
    matrix[bought[4]] = [np.nan, 1]
    matrix[bought[7]] = 0
    np.save(shop / "listed.npy", matrix)
    report = prepare_own("Own", source(shop, "a=@listed.npy,@listed.txt", items=None), tmp_path)
    kept = aligned(tmp_path / "Own", "Own", "a")
    assert set(listed) - set(kept) == {listed[bought[4]], listed[bought[7]], "sku-29"}
    assert report.ledger.count("rows of a features with a NaN or an infinity") == 1
    assert report.ledger.count("rows of a features that are all zero") == 1
    assert report.ledger.count("items without a features") == 2
    assert "text" not in report.modalities


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-8"])
@pytest.mark.parametrize("end", ["\n", " \r\n"])
def test_item_list_with_a_mark_or_blanks(shop, tmp_path, encoding, end):
    tokens = (shop / "listed.txt").read_text().split()
    (shop / "listed.txt").write_bytes("".join(t + end for t in tokens).encode(encoding))
    prepare_own("Own", source(shop, "a=@listed.npy,@listed.txt", items=None), tmp_path)
    assert aligned(tmp_path / "Own", "Own", "a") == {f"sku-{k}": k + 1.0 for k in range(29)}


@pytest.mark.slow
def test_formats_give_the_same(shop, tmp_path):
    pytest.importorskip("pyarrow", reason="parquet needs pyarrow")

    def write(frame, stem):
        frame.to_csv(shop / f"{stem}.csv", index=False)
        frame.to_csv(shop / f"{stem}.tsv", index=False, sep="\t")
        frame.to_csv(shop / f"{stem}.csv.gz", index=False)
        table = duckdb.read_csv(str(shop / f"{stem}.csv"), all_varchar=True)
        table.write_csv(str(shop / f"{stem}.csv.zst"), compression="zstd")
        frame.to_parquet(shop / f"{stem}.parquet", index=False)

    events = pd.read_csv(shop / "events.csv")
    events["customer"] = events["customer"].str[1:].astype(int)
    events["time"] = pd.to_datetime(events["time"], unit="h", utc=True)
    events.loc[7, "sku"] = None
    events.loc[[9, 11], "time"] = pd.NaT
    items = pd.read_json(shop / "items.jsonl", lines=True)
    items.loc[2, "title"] = None
    write(events, "e")
    write(items, "i")
    made = []
    for suffix in (".csv", ".tsv", ".csv.gz", ".csv.zst", ".parquet"):
        files = OwnSource(
            shop / f"e{suffix}", shop / f"i{suffix}",
            (FeatureFile("a", shop / "by_items_file.npy", None),),
        )  # fmt: skip
        report = prepare_own("Own", files, tmp_path / suffix, ALL)
        assert report.ledger.count("rows without an item") == 1
        assert report.ledger.count("rows whose time is not a number or ISO 8601 date") == 2
        made.append({p.name: p.read_bytes() for p in (tmp_path / suffix / "Own").iterdir()})
    assert all(files == made[0] for files in made)


def test_parquet_tokens(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="parquet needs pyarrow")
    from pyarrow import parquet

    def table(users):
        return pa.table({"user_id": users, "item_id": ["a", "b", None], "timestamp": [2, 1, 3]})

    path, files = tmp_path / "e.parquet", OwnSource(tmp_path / "e.parquet")
    parquet.write_table(table(pa.array([12.0, 12.0, None])), path)
    prepare_own("Own", files, tmp_path, ALL)
    lines = (tmp_path / "Own" / "Own.inter").read_text().splitlines()[1:]
    assert lines == ["12\tb\t0\t1", "12\ta\t1\t2"]
    parquet.write_table(table(pa.array([12.5, 12.0, None])), path)
    with pytest.raises(UserError, match="column 'user_id' is double; expected text or whole"):
        prepare_own("Own", files, tmp_path, ALL, force=True)


@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_parquet_nanoseconds(tmp_path, zone):
    """Floating seconds that pandas makes dates of end in nanoseconds."""
    pa = pytest.importorskip("pyarrow", reason="parquet needs pyarrow")
    from pyarrow import parquet

    seconds = np.array([1.6e9 + 0.354000092, 1.6e9 + 0.1, np.nan])
    times = pd.Series(pd.to_datetime(seconds, unit="s")).dt.tz_localize("UTC").dt.tz_convert(zone)
    frame = pd.DataFrame({"user_id": ["u"] * 3, "item_id": ["late", "early", "?"], "time": times})
    frame.to_parquet(tmp_path / "e.parquet", index=False)
    report = prepare_own("Own", OwnSource(tmp_path / "e.parquet"), tmp_path, ALL)
    lines = (tmp_path / "Own" / "Own.inter").read_text().splitlines()[1:]
    assert lines == ["u\tearly\t0\t1600000000.100000", "u\tlate\t1\t1600000000.354000"]
    assert report.ledger.count("rows whose time is not a number or ISO 8601 date") == 1
    if zone is not None and duckdb.__version__ < "2":
        return  # earlier versions read these as microseconds
    # Times within a microsecond keep their order too.
    times = pa.array([1_600_000_000_000_000_000 - n for n in range(4)], pa.timestamp("ns", zone))
    table = pa.table({"user_id": ["u"] * 4, "item_id": list("dcba"), "time": times})
    parquet.write_table(table, tmp_path / "e.parquet")
    prepare_own("Own", OwnSource(tmp_path / "e.parquet"), tmp_path, ALL, force=True)
    lines = (tmp_path / "Own" / "Own.inter").read_text().splitlines()[1:]
    assert [line.rpartition("\t")[0] for line in lines] == [
        "u\ta\t0", "u\tb\t1", "u\tc\t2", "u\td\t3",
    ]  # fmt: skip
    parquet.write_table(table.set_column(2, "time", times.cast(pa.time64("ns"))),
                        tmp_path / "e.parquet")  # fmt: skip
    with pytest.raises(UserError, match=r"column 'time' is time(_ns)?; expected numbers, dates"):
        prepare_own("Own", OwnSource(tmp_path / "e.parquet"), tmp_path, ALL, force=True)


@pytest.mark.parametrize("suffix", [".bz2", ".xz"])
def test_other_compressions(shop, tmp_path, suffix):
    path = shop / f"e.csv{suffix}"
    path.write_bytes((shop / "events.csv").read_bytes())
    with pytest.raises(UserError, match=f"compressed as {suffix}; expected .gz, .zst or none"):
        prepare_own("Own", OwnSource(path), tmp_path)


def cells(path, *names):
    with Table(path) as table:
        table.load({f"cell{n}": table.column(name)[0] for n, name in enumerate(names)})
        return [row[1:] for row in table.rows()]


@pytest.mark.parametrize("place", ["header", "row"])
def test_long_cells(tmp_path, place):
    path = tmp_path / "items.csv"
    words = {"header": "note", "row": "short", place: "x" * 300_000}
    path.write_text(f"item_id,{words['header']}\na,{words['row']}\nb,last\n")
    assert cells(path, "item_id", words["header"]) == [("a", words["row"]), ("b", "last")]
    path.write_text('item_id,note\na,"' + "x" * (1 << 24) + ",never closed\n")
    with pytest.raises(UserError, match="items.csv cannot be read to its end .*every quote closed"):
        cells(path, "note")


@pytest.mark.parametrize("name", ["e[1].csv", "e*?.csv", "e'; DROP TABLE x; --.csv"])
def test_names_are_never_patterns_or_sql(tmp_path, name):
    (tmp_path / "e1.csv").write_text("user_id,item_id\nother,other\n")
    (tmp_path / name).write_text("user_id,item_id\nu,i\n")
    assert cells(tmp_path / name, "user_id", "item_id") == [("u", "i")]


def test_no_other_file_is_within_reach(tmp_path):
    (tmp_path / "e.csv").write_text("user_id,item_id\nu,i\n")
    (tmp_path / "secret.csv").write_text("a\nb\n")
    with Table(tmp_path / "e.csv") as table:
        for sql in (f"FROM '{tmp_path}/secret.csv'", "SET enable_external_access = true",
                    f"COPY (SELECT 1) TO '{tmp_path}/made.csv'", "INSTALL httpfs"):  # fmt: skip
            with pytest.raises(UserError, match="disabled|locked|Cannot"):
                table.query(sql)
    assert not (tmp_path / "made.csv").exists()


def test_lines_of_faults(tmp_path):
    """The first fault of each kind, in a text file with rows that have too many fields."""
    rows = ["user_id,item_id,timestamp", "u,i,1", "u,i", ",i,1", "u,i,1,1", "u,j,x", "u,k,2"]
    (tmp_path / "e.csv").write_text("\n".join(rows))
    report = prepare_own("Own", OwnSource(tmp_path / "e.csv"), tmp_path, ALL)
    firsts = {name.split()[-1]: reason.first for name, reason in report.ledger.items()}
    assert firsts == {"header": "line 3", "user": "line 4", "date": "line 6"}
    assert report.read == 6 and report.interactions == 2


def test_ragged_item_rows(shop, tmp_path):
    """Ragged rows are counted, and features in the order of the file are then refused."""
    (shop / "i.csv").write_text("sku,title\nsku-1,one\nsku-2\nsku-3,three\n")
    report = prepare_own("Own", source(shop, items="i.csv"), tmp_path)
    assert dict(report.ledger.items())["unreadable rows of the items file"].first == "line 3"
    np.save(shop / "three.npy", numbered(range(3)))
    with pytest.raises(UserError, match="which item is each row of.*as many fields in every row"):
        prepare_own("No", source(shop, "a=@three.npy", items="i.csv"), tmp_path)


def test_users_too_short_to_be_tested(tmp_path):
    """The report's count of them, against the split that a run makes."""
    items = "abcdef"
    lengths = {"one": 1, "two": 2, "too": 2, "three": 3, "four": 4, "six": 6}
    rows = [f"{user},{items[k]},{k}" for user, n in lengths.items() for k in range(n)]
    (tmp_path / "e.csv").write_text("\n".join(["user,item,time", *rows]))
    report = prepare_own("Own", OwnSource(tmp_path / "e.csv"), tmp_path, ALL)
    config = make_config(tmp_path, "Own", modalities=[], topk=[2])
    parts = split(config, create_dataset(config, MultiModalDataset))
    found = [set(part.field2id_token["user_id"][part.inter_feat["user_id"]]) for part in parts]
    every = set(lengths)
    assert [every - users for users in found] == [
        {"one"}, {"one", "two", "too", "three"}, {"one", "two", "too"}
    ]  # fmt: skip
    told = report.table()
    assert "\n3 users have fewer than 3 events: they are not tested, and those with 1" in told
    assert "\n1 users have 3 events: they are tested, but not in validation.\n" in told
    report = prepare_own("Long", OwnSource(tmp_path / "e.csv"), tmp_path,
                         EventOptions(user_core=4, item_core=1))  # fmt: skip
    assert "not tested" not in report.table() and "validation" not in report.table()


def test_text_columns(shop, tmp_path):
    (shop / "items.csv").write_text('sku,Name,about\nsku-1,Lamp,"red, <i>warm</i>"\nsku-2,,\n')
    options = ItemOptions(text=("Name", "about"))
    report = prepare_own("Own", source(shop, items="items.csv"), tmp_path, items=options)
    assert report.ledger.count("items without a text") == N_ITEMS - 2
    assert (tmp_path / "Own" / "Own.text.items.txt").read_text() == "sku-1\n"
    titles = (tmp_path / "Own" / "Own.titles.tsv").read_text().splitlines()
    assert titles[1:3] == ["sku-1\tLamp", "sku-2\t"] and len(titles) == N_ITEMS
    with pytest.raises(UserError, match="no column 'brand' .--text_columns."):
        options = ItemOptions(text=("brand",))
        prepare_own("No", source(shop, items="items.csv"), tmp_path, items=options)
    with pytest.raises(UserError, match="no column 'code' .--items_item_column."):
        options = ItemOptions(item="code")
        prepare_own("No", source(shop, items="items.csv"), tmp_path, items=options)


def test_train_line_is_for_a_shell(shop, tmp_path, monkeypatch):
    """A path with a blank is one argument, and of a linked folder it is the link's."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my data").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "my data" / "Own").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    report = prepare_own("Own", source(shop), "my data", force=True)
    words = shlex.split(report.command())
    assert "--data_path=my data" in words and "--dataset=Own" in words
    assert Path("my data", "Own", "Own.inter").is_file()


FAULTS = [
    (("a=@none.npy,@listed.txt",), None, "none.npy cannot be read: no such file"),
    (("a=@listed.npy",), None, "which item is each row of"),
    (("a=@short.npy,@listed.txt",), None, "has 3 rows, but .* lists 30 items"),
    (("a=@short.npy",), "items.jsonl", "has 3 rows, but the items file lists 30 items"),
    (
        ("a=@listed.npy,@other.txt",),
        None,
        r"other.txt: none of its 30 items .*its first: '0'; among the interactions: 'sku-\d+'",
    ),
    (("a=@nan.npy,@listed.txt",), None, "no row is left .* 29 of these not finite"),
    (("a=@ints.npy,@listed.txt",), None, "has dtype int64"),
    (("a=@listed.npy,@none.txt",), None, "none.txt cannot be read"),
    (("a=@listed.npy,@listed.txt",) * 2, None, "names a modality twice"),
    ((), "other.csv", "none of its rows is of an item with interactions"),
    ((), "empty.jsonl", "expected one JSON object a line"),
    ((), "none.csv", "none.csv not found"),
    ((), "code.csv", "header is code, title. Name the column with --items_item_column."),
]


@pytest.mark.parametrize(("features", "items", "message"), FAULTS)
def test_faults_leave_the_old_set(shop, tmp_path, features, items, message):
    np.save(shop / "short.npy", np.ones((3, 2), dtype=np.float32))
    np.save(shop / "nan.npy", np.full((N_ITEMS, 2), np.nan))
    np.save(shop / "ints.npy", np.ones((N_ITEMS, 2), dtype=int))
    (shop / "other.txt").write_text("".join(f"{k}\n" for k in range(N_ITEMS)))
    (shop / "other.csv").write_text("item,title\n5,x\n")
    (shop / "code.csv").write_text("code,title\nsku-1,x\n")
    (shop / "empty.jsonl").write_text("\n[]\n")
    prepare_own("Own", source(shop), tmp_path / "d")
    before = contents(tmp_path / "d" / "Own")
    with pytest.raises(UserError, match=message):
        prepare_own("Own", source(shop, *features, items=items), tmp_path / "d", force=True)
    assert contents(tmp_path / "d" / "Own") == before
    assert len(list((tmp_path / "d").iterdir())) == 1


def test_force_leaves_no_features_of_the_former_catalogue(shop, tmp_path):
    files = ("look=@listed.npy,@listed.txt", "mine=@listed.npy,@listed.txt")
    first = prepare_own("Own", source(shop, *files), tmp_path)
    assert first.former == Former() and "Kept" not in first.table()
    folder = tmp_path / "Own"
    entries = yaml.safe_load((folder / "Own.features.yaml").read_text())
    # Changed since, described by hand, or not described at all: made by others.
    np.save(folder / "Own.mine.npy", numbered(range(N_ITEMS - 1)) * 2)
    np.save(folder / "Own.hand.npy", np.ones((1, 2), np.float32))
    checksum = sha256_of(folder / "Own.hand.npy")
    entries["hand"] = {"encoder": "my own", "sha256": checksum}
    (folder / "Own.features.yaml").write_text(yaml.safe_dump(entries))
    (folder / "notes").mkdir()
    report = prepare_own("Own", source(shop, items=None), tmp_path, force=True)
    assert set(report.former.removed) == {"text", "look"}
    assert report.former.kept == ("Own.hand.npy", "Own.mine.items.txt", "Own.mine.npy", "notes")
    assert {path.name for path in folder.iterdir()} == {
        "Own.inter", "Own.titles.tsv", "Own.features.yaml", "Own.prepared.yaml",
        *report.former.kept,
    }  # fmt: skip
    assert set(yaml.safe_load((folder / "Own.features.yaml").read_text())) == {"mine", "hand"}
    told = report.table()
    assert "Removed features that an earlier prepare made: look, text." in told
    assert "Kept from before: Own.hand.npy, Own.mine.items.txt, Own.mine.npy, notes." in told
    with pytest.raises(UserError, match="Own.mine.npy was not written by `prepare`"):
        prepare_own("Own", source(shop, *files), tmp_path, force=True)
    for suffix in ("npy", "items.txt"):
        (folder / f"Own.mine.{suffix}").unlink()
    # What is made again is neither.
    again = prepare_own("Own", source(shop, *files), tmp_path, force=True)
    assert again.former == Former(kept=("Own.hand.npy", "notes"))


def test_many_kept_files_are_not_all_named():
    told = Former(kept=tuple(map(str, range(12)))).lines()
    assert told == ["Kept from before: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more."]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
@pytest.mark.parametrize(
    "step", ["write_events", "read_items", "write_features", "write_description"]
)
def test_full_disk_or_interrupt_leaves_the_old_set(shop, tmp_path, monkeypatch, step, failure):
    files = source(shop, "a=@listed.npy,@listed.txt")
    prepare_own("Own", files, tmp_path / "d")
    before = contents(tmp_path / "d" / "Own")
    work = getattr(own, step)

    def fail_after_writing(*args):
        work(*args)
        raise failure

    monkeypatch.setattr(own, step, fail_after_writing)
    expected = UserError if isinstance(failure, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        prepare_own("Own", files, tmp_path / "d", ALL, force=True)
    assert contents(tmp_path / "d" / "Own") == before
    assert [path.name for path in (tmp_path / "d").iterdir()] == ["Own"]
    monkeypatch.undo()
    prepare_own("Own", files, tmp_path / "d", ALL, force=True)  # and the next attempt is clean
    assert len(list((tmp_path / "d").iterdir())) == 1


@pytest.mark.parametrize("text", ["a", "a=", "=x.npy", "id=x.npy", "a.b=x.npy", "features=x.npy"])
def test_bad_feature_arguments(text):
    with pytest.raises(UserError, match="--features"):
        FeatureFile.parse(text)


def test_repeatable_with_any_threads(shop, tmp_path, monkeypatch):
    for threads in (1, 2, 4):
        monkeypatch.setitem(query.SETTINGS, "threads", threads)
        prepare_own("Own", source(shop), tmp_path / str(threads))
    made = [contents(tmp_path / str(threads) / "Own") for threads in (1, 2, 4)]
    assert made[0] == made[1] == made[2]


def test_example_of_the_readme(tmp_path):
    mini = ROOT / "dataset" / "Mini"
    image = FeatureFile("image", mini / "Mini.image.npy", mini / "Mini.image.items.txt")
    files = OwnSource(mini / "Mini.inter", mini / "Mini.titles.tsv", (image,))
    report = prepare_own("Copy", files, tmp_path)
    for name in ("inter", "image.npy", "image.items.txt"):
        made = (tmp_path / "Copy" / f"Copy.{name}").read_bytes()
        assert made == (mini / f"Mini.{name}").read_bytes()
    assert "14  items without image features" in report.table()


@pytest.mark.parametrize(
    "cells, expected",
    [
        (["1600000000", "1600086400"], ["1600000000", "1600086400"]),
        (["1600000000123", "1600086400000"], ["1600000000.123000", "1600086400.000000"]),
        (["1600000000000000", "1600086400000000"], ["1600000000", "1600086400"]),
        (["1600000000000000000", "1600086400000000000"], ["1600000000", "1600086400"]),
        (["1970-01-03", "1971-05-01 12:00:00"], ["172800", "41947200"]),  # microseconds inside
        (["3", "17"], ["3", "17"]),  # days, say: see `day_length`
    ],
)
def test_times_are_written_in_seconds(tmp_path, cells, expected):
    rows = [f"u,i{place},{cell}" for place, cell in enumerate(cells)]
    (tmp_path / "e.csv").write_text("\n".join(["user,item,time", *rows]) + "\n")
    prepare_own("Own", OwnSource(tmp_path / "e.csv"), tmp_path, ALL)
    lines = (tmp_path / "Own" / "Own.inter").read_text().splitlines()[1:]
    assert lines == [f"u\ti{place}\t{place}\t{time}" for place, time in enumerate(expected)]
    (tmp_path / "o.csv").write_text("\n".join(["user,item,order", "u,a,5", "u,b,7"]) + "\n")
    prepare_own("Own", OwnSource(tmp_path / "o.csv"), tmp_path, ALL, force=True)
    assert "unix_time" not in (tmp_path / "Own" / "Own.inter").read_text()


def test_text_store(tmp_path):
    texts = ["", "a", "ü\n" * 50, "", "end"]
    with TextStore(tmp_path) as store:
        for text in texts:
            store.append(text)
        assert list(store) == texts and len(store) == 5
        assert [store[k] for k in (4, 2, -1, 0)] == ["end", texts[2], "end", ""]
        assert store[1:3] == texts[1:3]
        with pytest.raises(IndexError):
            store[5]


@pytest.mark.slow
def test_command_line_to_a_trained_model(shop, rundir, capsys):
    with gzip.open(shop / "events.csv.gz", "wt") as file:
        file.write((shop / "events.csv").read_text())
    arguments = ["prepare", "Own", "--interactions", str(shop / "events.csv.gz"), "--items",
                 str(shop / "items.jsonl"), "--features", f"look={shop}/by_items_file.npy",
                 "--user_core", "3", "--data_path", "data"]  # fmt: skip
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert '--user_inter_num_interval="[3,inf)"' in printed
    assert main(arguments) == 2 and "--force" in capsys.readouterr().err
    assert main(["prepare", "Own", "--source", "x", "--items", "y"]) == 2
    assert "neither is given" in capsys.readouterr().err
    assert main(["prepare", "Own"]) == 2 and "--interactions" in capsys.readouterr().err
    overrides = {**TINY, "data_path": "data", "modalities": ["text", "look"],
                 "user_inter_num_interval": "[3,inf)", "codebook_size": 8}  # fmt: skip
    result = run("BBQRec", "Own", [], overrides)
    assert set(result["features"]) == {"text", "look"}
    assert result["features"]["look"]["encoder"] == "by_items_file.npy (given)"
    assert 0 <= result["test_result"]["recall@10"] <= 1
    assert Path(result["files"]["model"]).is_file()


def own_files(folder, name="Own"):
    """A data set made by hand: events with ratings and times, and no word of `prepare`."""
    (folder / name).mkdir()
    rows = [f"u{u}\ti{i}\t{u + i}\t{9e8 + 86400 * i:.0f}" for u in range(6) for i in range(6)]
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
    (folder / name / f"{name}.inter").write_text("\n".join([header, *rows]) + "\n")
    return folder / name / f"{name}.inter"


@pytest.mark.parametrize("force", [False, True])
def test_an_input_is_never_replaced(tmp_path, force):
    events = own_files(tmp_path)
    before = contents(events.parent)
    (tmp_path / "link.tsv").symlink_to(events)
    for path in (events, tmp_path / "link.tsv", tmp_path / "x" / ".." / "Own" / "Own.inter"):
        (tmp_path / "x").mkdir(exist_ok=True)
        with pytest.raises(UserError, match="an input is never replaced"):
            prepare_own("Own", OwnSource(path), tmp_path, force=force)
    assert contents(events.parent) == before
    report = prepare_own("Other", OwnSource(events), tmp_path, force=force)  # and where it may
    assert report.interactions == 36 and contents(events.parent) == before


def test_matrices_and_items_that_are_read_are_never_replaced(shop, tmp_path):
    prepare_own("Own", source(shop, "a=@listed.npy,@listed.txt"), tmp_path)
    folder = tmp_path / "Own"
    before = contents(folder)
    matrix, items = folder / "Own.a.npy", folder / "Own.a.items.txt"
    for given in (
        OwnSource(shop / "events.csv", None, (FeatureFile("a", matrix, shop / "listed.txt"),)),
        OwnSource(shop / "events.csv", None, (FeatureFile("a", shop / "listed.npy", items),)),
        OwnSource(shop / "events.csv", folder / "Own.titles.tsv"),
        OwnSource(folder / "Own.inter"),
    ):
        with pytest.raises(UserError, match="an input is never replaced"):
            prepare_own("Own", given, tmp_path, force=True)
    assert contents(folder) == before


@pytest.mark.slow
@pytest.mark.parametrize("file", ["Own.inter", "Own.titles.tsv", "Own.text.npy", "Own.a.items.txt"])
@pytest.mark.parametrize("prepared", [False, True])
def test_a_file_that_no_prepare_wrote_is_never_replaced(shop, tmp_path, file, prepared):
    if prepared:  # and then changed by hand
        prepare_own("Own", source(shop, "a=@listed.npy,@listed.txt"), tmp_path)
    (tmp_path / "Own").mkdir(exist_ok=True)
    with open(tmp_path / "Own" / file, "ab") as handle:
        handle.write(b"mine\n")
    before = contents(tmp_path / "Own")
    with pytest.raises(UserError, match="it is never replaced") as error:
        prepare_own("Own", source(shop, "a=@listed.npy,@listed.txt"), tmp_path, force=True)
    assert str(tmp_path / "Own" / file) in str(error.value) and "--force" not in str(error.value)
    assert contents(tmp_path / "Own") == before
    assert [path.name for path in tmp_path.iterdir() if path.name != "shop"] == ["Own"]


def test_a_set_prepared_before_the_list_existed_is_kept_beside(shop, tmp_path):
    prepare_own("Own", source(shop), tmp_path)
    for later in ("prepared.yaml", "item_table.parquet"):
        (tmp_path / "Own" / f"Own.{later}").unlink()
    before = contents(tmp_path / "Own")
    report = prepare_own("Own", source(shop), tmp_path, force=True)
    assert report.former.backup is not None and contents(report.former.backup) == before
    assert str(report.former.backup) in report.table()
    again = prepare_own("Own", source(shop), tmp_path, force=True)
    assert again.former.backup is None


def test_a_preparation_killed_between_two_renames_loses_nothing(shop, tmp_path, monkeypatch):
    prepare_own("Own", source(shop), tmp_path)
    (tmp_path / "Own" / "mine.txt").write_text("the user's")
    before, rename = contents(tmp_path / "Own"), os.rename

    def killed(old, new):
        if Path(new) == tmp_path / "Own":
            raise KeyboardInterrupt
        rename(old, new)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "rename", killed)
        prepare_own("Own", source(shop), tmp_path, force=True)
    with pytest.raises(UserError, match="already exists"):
        prepare_own("Own", source(shop), tmp_path)
    assert contents(tmp_path / "Own") == before
    prepare_own("Own", source(shop), tmp_path, force=True)
    assert contents(tmp_path / "Own") == before
    assert not list(tmp_path.glob(".Own*"))


def test_nothing_left_names_the_rows_left_out(tmp_path):
    rows = ["u,NA", *(f"u,i{number}" for number in range(5))]
    (tmp_path / "e.csv").write_text("\n".join(["user,item", *rows]))
    with pytest.raises(UserError, match="nothing is left of 5 events") as error:
        prepare_own("Own", OwnSource(tmp_path / "e.csv"), tmp_path)
    assert "1  rows whose item cannot be a token" in str(error.value)
