"""Recommendations for many users in a file, as `load_run(...).recommend` gives them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recbole_bbqrec import load_run
from recbole_bbqrec.cli.main import main
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.serving import lists
from recbole_bbqrec.serving.lists import ListOptions, write_lists
from tests.support.runs import ROOT, finished_run

pytestmark = pytest.mark.slow
SMALL = {
    "data_path": str(ROOT / "dataset"), "epochs": 1, "hidden_size": 16, "inner_size": 32,
    "n_layers": 1, "show_progress": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def bbqrec(crowded):
    return load_run(crowded.files.directory), crowded.files.directory


@pytest.fixture(scope="module")
def sasrec(tmp_path_factory):
    files = finished_run(tmp_path_factory.mktemp("sasrec"), "SASRec", SMALL).files
    return load_run(files.directory), files.directory


@pytest.fixture(params=["bbqrec", "sasrec"])
def loaded(request):
    return request.getfixturevalue(request.param)


def read(path: Path) -> pd.DataFrame:
    kinds = {".parquet": pd.read_parquet, ".csv": pd.read_csv}
    if path.suffix == ".jsonl":
        return pd.read_json(path, lines=True)
    return kinds[path.suffix](path)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("bbqrec", ".parquet"), ("sasrec", ".parquet"), ("sasrec", ".csv"), ("sasrec", ".jsonl")],
)
def test_everybody_s_list_is_that_of_the_python_call(name, suffix, request, tmp_path, monkeypatch):
    run, directory = request.getfixturevalue(name)
    monkeypatch.setattr(lists, "PART", 60)
    out = tmp_path / f"recs{suffix}"
    users = list(run.recommender().user_ids)
    words = ["recommend", str(directory), f"--output={out}", "--topk=5"]
    if name == "bbqrec":
        users = users[:150]
        (tmp_path / "users.txt").write_text("\n".join(users))
        words.append(f"--users={tmp_path}/users.txt")
    assert main(words) == 0
    expected = run.recommend(users=users, k=5)
    found = read(out)
    assert list(found) == ["user", "rank", "item", "score", "title"]
    for column in ("user", "rank", "item", "title"):
        assert found[column].tolist() == expected[column].tolist()
    np.testing.assert_allclose(found["score"], expected["score"], rtol=1e-3)
    assert not (tmp_path / f"recs{suffix}.parts").exists()


def test_filters_and_seen_items_equal_exhaustive_ranking(loaded, tmp_path):
    run, _ = loaded
    recommender = run.recommender()
    tokens = recommender.item_tokens[1:]
    allow, deny = tokens[::3], tokens[::9]
    (tmp_path / "allow.txt").write_text("\n".join(allow))
    (tmp_path / "deny.txt").write_text("\n".join(deny))
    users = list(recommender.user_ids)[:40]
    (tmp_path / "users.txt").write_text("\n".join(users))
    options = ListOptions(
        users=tmp_path / "users.txt", topk=20, exclude_seen=True, allow=tmp_path / "allow.txt",
        deny=tmp_path / "deny.txt",
    )  # fmt: skip
    model = tmp_path / "model"
    model.touch()
    report = write_lists(recommender, model, tmp_path / "recs.parquet", options)
    found = pd.read_parquet(tmp_path / "recs.parquet")
    everything = run.recommend(users=users, k=len(tokens))  # a beam as wide as the catalogue
    seen = {
        user: set(recommender.item_tokens[recommender.seen_by([user])[0].unique()])
        for user in users
    }
    kept = everything["item"].isin(set(allow) - set(deny))
    pairs = zip(everything["user"], everything["item"])
    kept &= np.array([item not in seen[user] for user, item in pairs])
    expected = everything[kept].groupby("user", sort=False).head(20)
    assert report.users == 40 and report.rows == len(found) == 20 * 40 and report.short == 0
    if run.config["model"] == "SASRec":
        assert found["item"].tolist() == expected["item"].tolist()
    # a beam of 20 over about 90 allowed items: nearly all of the exhaustive lists
    pairs = set(zip(expected["user"], expected["item"]))
    assert len(pairs & set(zip(found["user"], found["item"]))) >= 0.9 * len(pairs)


def test_a_shelf_of_fewer_items_than_asked_for_is_listed_whole(loaded, tmp_path):
    run, directory = loaded
    shelf = [str(item) for item in run.recommender().item_tokens[[5, 17, 300]]]
    (tmp_path / "shelf.txt").write_text("\n".join([*shelf, "nowhere"]))
    out = tmp_path / "recs.csv"
    main(["recommend", str(directory), f"--output={out}", f"--allow={tmp_path}/shelf.txt"])
    groups = pd.read_csv(out).groupby("user")["item"].agg(set)
    assert len(groups) == 617 and all(group == set(shelf) for group in groups)


def test_an_interrupted_list_goes_on_and_ends_the_same(sasrec, tmp_path, monkeypatch):
    run, directory = sasrec
    monkeypatch.setattr(lists, "PART", 200)
    command = ["recommend", str(directory), "--topk=3"]
    main([*command, f"--output={tmp_path}/whole.csv"])
    recommended, calls = lists._recommended, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return recommended(*arguments)

    monkeypatch.setattr(lists, "_recommended", interrupted)
    assert main([*command, f"--output={tmp_path}/recs[1].csv"]) == 130
    assert not (tmp_path / "recs[1].csv").exists()
    with pytest.raises(UserError, match="parts of another command"):
        write_lists(run.recommender(), Path(ROOT / "setup.cfg"), tmp_path / "recs[1].csv",
                    ListOptions(topk=3))  # fmt: skip
    assert main([*command, f"--output={tmp_path}/recs[1].csv"]) == 0
    assert len(calls) == 3 + 2  # of four parts, two were done
    assert (tmp_path / "recs[1].csv").read_text() == (tmp_path / "whole.csv").read_text()


def test_conditions_on_a_table_of_items(bbqrec, tmp_path):
    run, directory = bbqrec
    tokens = run.recommender().item_tokens[1:]
    table = pd.DataFrame({"item_id": tokens, "price": np.arange(len(tokens))})
    table.to_parquet(tmp_path / "items.parquet")
    out = tmp_path / "recs.parquet"
    main([
        "recommend", str(directory), f"--output={out}", "--topk=2", "--where=price < 50",
        "--where=price >= 10", f"--items={tmp_path}/items.parquet", "--explain",
    ])  # fmt: skip
    found = pd.read_parquet(out)
    assert set(found["item"]) <= set(tokens[10:50]) and len(found) == 2 * 617
    assert found["because"].str.contains(r"i\d+ \(similarity -?[01]\.\d\d").all()
    assert found["because"].str.contains("codes text").any()


def test_unknown_users_and_items_are_counted_or_refused(bbqrec, tmp_path, capsys):
    _, directory = bbqrec
    command = ["recommend", str(directory), "--topk=2"]
    (tmp_path / "users.txt").write_text("u0001\nnobody\nu0002\n")
    assert main([*command, f"--output={tmp_path}/a.csv", f"--users={tmp_path}/users.txt"]) == 0
    assert "1 unknown users left out: nobody" in capsys.readouterr().out
    assert pd.read_csv(tmp_path / "a.csv")["user"].unique().tolist() == ["u0001", "u0002"]
    (tmp_path / "h.jsonl").write_text(
        '{"user": "x", "history": ["i0398", "nothing"]}\n{"user": "y", "history": []}\n'
    )
    assert main([*command, f"--output={tmp_path}/b.csv", f"--histories={tmp_path}/h.jsonl"]) == 0
    printed = capsys.readouterr().out
    assert "1 unknown items left out: nothing" in printed and "1 users have no known" in printed
    assert main([*command, f"--output={tmp_path}/c.csv", f"--histories={tmp_path}/h.jsonl",
                 "--strict"]) == 2  # fmt: skip
    assert "names the unknown item 'nothing'" in capsys.readouterr().err
    (tmp_path / "h.jsonl").write_text('{"user": "y", "history": []}\n')
    assert main([*command, f"--output={tmp_path}/d.csv", f"--histories={tmp_path}/h.jsonl",
                 "--strict"]) == 2  # fmt: skip
    assert "the history of 'y' is empty" in capsys.readouterr().err


def test_whoever_is_unknown_gets_popular_items_where_asked_for(bbqrec, tmp_path, capsys):
    run, directory = bbqrec
    recommender, model = run.recommender(), tmp_path / "model"
    model.touch()
    events = pd.read_csv(Path(run.config["data_path"]) / "Mini.inter", sep="\t")
    counts = events["item_id:token"].value_counts()
    users, histories = tmp_path / "users.txt", tmp_path / "h.jsonl"
    users.write_text("nobody\nu0001\nsomebody\nu0002\n")
    histories.write_text('{"user": "x", "history": ["i0398"]}\n{"user": "y", "history": []}\n')
    for suffix, file, unknown in (
        (".csv", {"users": users}, ["nobody", "somebody"]),
        (".parquet", {"users": users}, ["nobody", "somebody"]),
        (".jsonl", {"histories": histories}, ["y"]),
    ):
        out = tmp_path / f"recs{suffix}"
        options = ListOptions(**file, topk=2, explain=True, popular=True)
        report = write_lists(recommender, model, out, options)
        assert report.popular == len(unknown) and "left out" not in report.text()
        found = read(out)
        popular = found["user"].isin(unknown)
        assert found["user"].tolist()[:2] == (["x"] * 2 if "y" in unknown else ["nobody"] * 2)
        assert found["score"].isna().equals(popular)
        assert (found["because"] == "most events").equals(popular)
        tops = found[popular].groupby("user")["item"].agg(list)
        assert len(tops) == len(unknown)
        for items in tops:
            assert counts[items].tolist() == counts.iloc[:2].tolist()
    known = read(tmp_path / "recs.parquet").dropna().drop(columns="because")
    plain = ["recommend", str(directory), "--topk=2", f"--users={users}"]
    assert main([*plain, f"--output={tmp_path}/plain.parquet"]) == 0
    expected = read(tmp_path / "plain.parquet")
    pd.testing.assert_frame_equal(known.reset_index(drop=True), expected, check_exact=True)
    assert main([*plain, f"--output={tmp_path}/all.csv", "--fallback=popular"]) == 0
    assert "2 users without a known item: the items with" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output=recs.xlsx"], "--output is recs.xlsx; expected a name that ends in"),
        (["--output=taken.csv"], "--output is taken.csv, which exists; it is never replaced"),
        (["--output=a.csv", "--topk=0"], "--topk is 0; expected 1 to 405"),
        (["--output=a.csv", "--where=price < 3"], r"data have none \(Mini\.item_.*--items=FILE"),
        (
            ["--output=a.csv", "--items=t.csv", "--where=kind = x"],
            'No item is allowed by --where="kind = x". Widen',
        ),
        (["--output=a.csv", "--users=no.txt"], "no.txt cannot be read"),
        (["--output=a.csv", "--users=u.csv", "--histories=h.csv"], "both given"),
        (
            ["--output=a.csv", "--allow=odd.txt"],
            "none of its 1 items is one of the run; the first is 'noth",
        ),
    ],
)
def test_mistakes_are_named(bbqrec, rundir, capsys, arguments, message):
    (rundir / "taken.csv").touch()
    (rundir / "odd.txt").write_text("nothing")
    (rundir / "t.csv").write_text("item_id,kind\ni1,y\n")
    assert main(["recommend", str(bbqrec[1]), *arguments]) == 2
    import re

    assert re.search(message, capsys.readouterr().err)
