"""The paper's experiments: its figures beside ours, budgets, refusals, charts; some for real."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from recbole_bbqrec.cli.main import main
from recbole_bbqrec.cli.reproduce import STUDIES
from recbole_bbqrec.config.values import read_yaml
from recbole_bbqrec.errors import pip_install
from recbole_bbqrec.experiment.reproduce import paper, runs
from recbole_bbqrec.experiment.reproduce.results import figure4
from recbole_bbqrec.experiment.store import launch
from recbole_bbqrec.experiment.store.launch import OneAfterAnother
from recbole_bbqrec.experiment.store.worker import work
from recbole_bbqrec.model.registry import get_model
from recbole_bbqrec.prepare.table1 import PAPER_TABLE1
from recbole_bbqrec.run_files.names import CONFIG, PLAN, RESULT
from recbole_bbqrec.run_files.per_user import PerUser
from tests.experiment.test_compare import check_latex

ROOT = Path(__file__).resolve().parents[2]
MINI = f"--data_path={ROOT / 'dataset'}"
USERS = 80


# the paper's figures --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "dataset", "label", "name", "value"),
    [
        ("table2", "Beauty", "BBQRec", "recall@10", 0.1147),
        ("table2", "Sports", "MISSRec", "ndcg@10", 0.0350),
        ("table2", "Toys", "GRU4Rec_F", "recall@5", 0.0572),
        ("table2", "Clothing", "LETTER", "ndcg@5", 0.0250),
        ("table3", "Sports", "w/o U", "recall@10", 0.0683),
        ("table4", "Clothing", "BBQRec", "recall@10", 0.0598),
        ("table4", "Toys", "BBQRec-E", "ndcg@10", 0.0710),
        ("table2", "Mini", "BBQRec", "recall@10", None),
        ("table2", "Beauty", "BBQRec", "mrr@10", None),
    ],
)
def test_printed_figures(table, dataset, label, name, value):
    assert paper.metric(table, dataset, label, name) == value


def test_printed_figures_are_complete():
    figures = paper.figures()
    assert set(PAPER_TABLE1) == set(paper.DATASETS)
    for table in ("table2", "table3", "table4"):
        labels = {setting.label for setting in STUDIES[table].settings}
        assert set(figures[table]) == set(paper.DATASETS)
        for rows in figures[table].values():
            assert set(rows) == labels and all(len(row) == 4 for row in rows.values())
    assert figures["table5"]["Clothing"]["LETTER"] == {2: 6270, 3: 395, 4: 23}
    assert figures["table6"]["Beauty"]["BBQRec"] == {50: 0.019, 100: 0.024}
    assert set(figures["figure4"]["order"]) < {s.label for s in STUDIES["figure4"].settings}
    assert {s.name for s in STUDIES["figure3"].settings} == set(figures["figure3"]["best"])
    for study in STUDIES.values():
        assert len({s.label for s in study.settings}) == len(study.settings)
        for setting in study.settings:
            get_model(setting.model)  # raises for an unknown one


# with runs that end at once -------------------------------------------------------------------


class Runs:
    """Fake runs: ``made`` so far, hits by model, seconds each; ``failing`` models."""

    def __init__(self):
        self.made, self.options, self.failing = [], [], set()
        self.share = {"BBQRec": 0.6, "TIGER": 0.4, "BBQRecNoID": 0.3, "BBQRecNoText": 0.5}
        self.now, self.seconds = 0.0, 120.0

    def clock(self):
        return self.now

    def process(self, directory):
        plan = json.loads((directory / PLAN).read_text())
        options = read_yaml(directory / CONFIG)
        self.made.append(plan["model"])
        self.options.append(options)
        self.now += self.seconds
        if plan["model"] in self.failing:
            (directory / "error.txt").write_text("out of memory\n")
            return 1
        share = self.share.get(plan["model"], 0.2) + options.get("similarity_buckets", 0) / 1e3
        rng = np.random.default_rng(plan["seed"])
        values = (rng.random(USERS) < share).astype(np.float32)
        users = np.array([f"u{i}" for i in range(USERS)])
        metrics = {name: values / (1 + place) for place, name in enumerate(paper.METRICS)}
        rank = values.astype(np.int32)
        PerUser(users, rank, 10, metrics, plan["split_hash"]).save(directory / "per_user.npz")
        result = {
            "test_result": {name: float(v.mean()) for name, v in metrics.items()},
            "tokenizer": {"collisions_before": 10 * options.get("codebook_levels", 0)},
            "features": {"text": {"encoder": "an encoder"}},
            "seconds": {"train": self.seconds},
            "files": {"per_user": "per_user.npz"},
        }
        (directory / RESULT).write_text(json.dumps(result))
        return 0


@pytest.fixture
def fake(rundir, monkeypatch):
    runs_made = Runs()
    monkeypatch.setattr(OneAfterAnother, "_process", lambda s, d, stop: runs_made.process(d))
    monkeypatch.setattr(launch, "time", SimpleNamespace(perf_counter=runs_made.clock))
    monkeypatch.setattr(runs, "time", SimpleNamespace(monotonic=runs_made.clock))
    return runs_made


@pytest.fixture
def beauty(tmp_path):
    """A data set called Beauty, with text alone: Mini under another name."""
    target = tmp_path / "data" / "Beauty"
    target.mkdir(parents=True)
    for end in ("inter", "text.npy", "text.items.txt"):
        shutil.copy(ROOT / "dataset" / "Mini" / f"Mini.{end}", target / f"Beauty.{end}")
    return f"--data_path={tmp_path / 'data'}"


def read_csv(what):
    with open(Path("reproduction") / what / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


def line_of(text, start):
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {start} "))
    return line


@pytest.mark.slow
def test_table2_beside_the_paper(fake, beauty, capsys):
    what = ["reproduce", "table2", "--models", "TIGER", "BBQRec", "--seeds", "2", beauty]
    assert main([*what, "--datasets", "Beauty", "Toys"]) == 0
    assert sorted(fake.made) == ["BBQRec", "BBQRec", "TIGER", "TIGER"]
    text = capsys.readouterr().out
    rows = {(r["dataset"], r["setting"], r["figure"]): r for r in read_csv("table2")}
    row = rows["Beauty", "BBQRec", "recall@10"]
    assert float(row["paper"]) == 0.1147 and row["status"] == "done" and row["seeds"] == "2"
    assert float(row["difference"]) == pytest.approx(float(row["ours"]) - 0.1147)
    first = float(rows["Beauty", "BBQRec", "recall@5"]["ours"])
    assert f"**{first:.4f}**" in text and f"/ 0.0815 ({first / 0.0815 - 1:+.1%})" in text
    assert "best other model" in text and "/ +8.7%" in line_of(text, "BBQRec over it")
    assert "seeds 2020, 2021" in text and "an encoder" in text
    # Toys is absent: the paper's figures, and how to make it
    assert rows["Toys", "TIGER", "ndcg@10"]["ours"] == "" and "0.0725" in text
    assert "prepare Toys --data_path" in text
    folder = Path("reproduction/table2")
    assert (folder / "table.md").read_text().rstrip() in text
    check_latex((folder / "table.tex").read_text())


def test_an_option_for_all_goes_to_the_models_that_read_it(fake, capsys):
    what = ["reproduce", "table2", "--models", "SASRec", "BBQRec", "--datasets", "Mini"]
    assert main([*what, MINI, "--num_beams=20"]) == 0
    assert [options.get("num_beams") for options in fake.options] == [None, 20]
    assert "`num_beams` is left out for SASRec" in capsys.readouterr().out


@pytest.mark.slow
def test_a_failed_run_is_a_cell(fake, capsys):
    fake.failing.add("BBQRecS")
    assert main(["reproduce", "table4", "--datasets", "Mini", MINI]) == 1
    text = capsys.readouterr().out
    assert fake.made == ["BBQRecS", "BBQRecE", "BBQRec"]
    assert "failed: see 2020-" in line_of(text, "BBQRec-S")
    assert "**" in line_of(text, "BBQRec")
    assert {r["status"] for r in read_csv("table4") if r["setting"] == "BBQRec-E"} == {"done"}


@pytest.mark.slow
def test_an_interruption_says_how_to_go_on(fake, capsys, monkeypatch):
    def interrupted(self, directory, stop):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(OneAfterAnother, "_process", interrupted)
        assert main(["reproduce", "table4", "--datasets", "Mini", MINI]) == 130
    assert "Run the same command to go on" in capsys.readouterr().err
    assert main(["reproduce", "table4", "--datasets", "Mini", MINI]) == 0


@pytest.mark.slow
def test_budget_stops_starting_and_the_same_command_goes_on(fake, capsys):
    what = ["reproduce", "figure3", "--datasets", "Mini", "--sweeps", "K", MINI]
    assert main([*what, "--budget", "5"]) == 0  # runs of 2 minutes: a third would end too late
    text = capsys.readouterr().out
    assert len(fake.made) == 2 and "1 min 0 s left, the next run takes about 2 min" in text
    assert "not run: budget" in line_of(text, "K=100") and "ours is not known" in text
    assert [r["status"] for r in read_csv("figure3")][::4] == ["done"] * 2 + ["not run: budget"] * 2
    assert main([*what, "--budget", "1"]) == 0
    assert len(fake.made) == 2  # the time of a run is known from those in the store
    assert main([*what, "--budget", "5"]) == 0
    assert len(fake.made) == 4 and "not run" not in capsys.readouterr().out.split("###")[-1]


@pytest.mark.slow
def test_figure3_shares_the_middle_and_names_the_best(fake, beauty, capsys):
    pytest.importorskip("matplotlib", reason="the chart needs matplotlib")
    assert main(["reproduce", "figure3", beauty]) == 0
    assert len(fake.made) == 13  # four sweeps of four that share one point
    changed = [[o[k] for k in ("codebook_levels", "codebook_size", "codebook_dim",
                               "similarity_buckets")] for o in fake.options]  # fmt: skip
    assert [3, 256, 128, 100] in changed and [3, 256, 128, 10] in changed
    assert all(sum(x != y for x, y in zip(c, [3, 256, 128, 100])) <= 1 for c in changed)
    text = capsys.readouterr().out
    assert "The paper's best on Beauty is K=100; ours by NDCG@10 on Beauty is K=200." in text
    assert "/ 0.1147" in line_of(text, "K=100") and "/" not in line_of(text, "K=200")
    chart = Path("reproduction/figure3/figure3-Beauty.png").read_bytes()
    assert chart.startswith(b"\x89PNG") and len(chart) > 20_000


@pytest.mark.slow
def test_figure4_leaves_out_what_the_data_lack(fake, beauty, capsys):
    pytest.importorskip("matplotlib", reason="the chart needs matplotlib")
    assert main(["reproduce", "figure4", "--datasets", "Beauty", beauty]) == 0
    assert fake.made == ["BBQRecNoID", "BBQRecNoText", "BBQRec"]
    text = capsys.readouterr().out
    assert "no image features" in line_of(text, "w/o image")
    ours = text[text.index("Ours by NDCG@10") :].splitlines()[0]
    assert ours.index("w/o ID (-") < ours.index("w/o text (-")
    assert Path("reproduction/figure4/figure4.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_table5_quantizes_all_levels_and_trains_no_generator(fake, capsys):
    assert main(["reproduce", "table5", "--datasets", "Mini", MINI]) == 0
    assert len(fake.made) == 9 and all(o["tokenize_only"] for o in fake.options)
    assert [o["codebook_levels"] for o in fake.options] == [2] * 3 + [3] * 3 + [4] * 3
    codes = {o["disambiguation"] for o in fake.options if o["model"] != "BBQRec"}
    assert codes == {"reassign"}
    text = capsys.readouterr().out
    assert "The paper has no such figures of Mini" in text
    assert [cell.strip() for cell in line_of(text, "L=4").split("|")[2:5]] == ["40"] * 3


@pytest.mark.slow
def test_table6_prefers_a_full_run(fake, capsys):
    what = ["--datasets", "Mini", MINI]
    plan = ["reproduce", "table6", "--models", "BBQRec", *what, "--dry_run"]
    assert main(plan) == 0 and "1 to run" in capsys.readouterr().out
    assert main(["reproduce", "table2", "--models", "BBQRec", *what]) == 0
    assert main(plan) == 0 and "1 there, 0 to run" in capsys.readouterr().out


@pytest.mark.slow
def test_dry_run_runs_nothing(fake, capsys):
    assert main(["reproduce", "table3", "--datasets", "Mini", "Toys", MINI, "--dry_run"]) == 0
    text = capsys.readouterr().out
    assert "4 runs" in text and "4 to run" in text and "Toys is not prepared" in text
    assert not fake.made and not Path("reproduction").exists()
    what = ["--datasets", "Toys", "--data_path=own data", "--dry_run"]
    assert main(["reproduce", "table3", *what]) == 0
    assert "prepare Toys --data_path 'own data'`" in capsys.readouterr().out


@pytest.mark.slow
def test_without_matplotlib_all_but_the_chart(fake, capsys, monkeypatch):
    def absent(title, panels, path):
        raise ImportError("No module named 'matplotlib'")

    monkeypatch.setattr(figure4, "save_bars", absent)
    assert main(["reproduce", "figure4", "--datasets", "Mini", MINI]) == 0
    assert pip_install("plots") in capsys.readouterr().out
    left = sorted(path.name for path in Path("reproduction/figure4").iterdir())
    assert left == ["results.csv", "table.md", "table.tex"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tabel2"], ["tabel2", "table1", "figure4", "`table2`"]),
        (["table2", "--models", "BBQRek"], ["--models", "BBQRek", "VQ-Rec", "`BBQRec`"]),
        (["table2", "--datasets", "Beuty"], ["Beuty", "Clothing", "Mini", "`Beauty`"]),
        (["table1", "--models", "SASRec"], ["--models", "trains no model"]),
        (["figure3", "--models", "TIGER"], ["--models", "BBQRec alone"]),
        (["figure3", "--sweeps", "Q"], ["--sweeps", "L, N, D, K"]),
        (["table3", "--sweeps", "L"], ["--sweeps", "figure3"]),
        (["table3", "--budget", "0"], ["--budget", "above 0"]),
        (["table3", "--budget", "nan"], ["--budget", "above 0"]),
        (["table4", "--epoch=1"], ["epoch", "`epochs`"]),
        (["table4", "--n_layers=1"], ["n_layers", "`encoder_layers`", "BBQRecE"]),
        (["table1", "--n_layers=1"], ["n_layers", "init NAME --model=BBQRec"]),
        (["table4", "--TIGER.epochs=1"], ["TIGER", "BBQRecS"]),
        (["table4", "--seeds", "1", "1"], ["--seeds"]),
    ],
)
def test_refused_before_anything_runs(fake, capsys, arguments, words):
    where = [] if "--datasets" in arguments else ["--datasets", "Mini"]
    assert main(["reproduce", *arguments, *where, MINI]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert all(word in error for word in words), error
    assert not fake.made


# for real -------------------------------------------------------------------------------------

SMALL = [
    MINI, "--tokenizer_epochs=2", "--tokenizer_warmup_epochs=1", "--epochs=1",
    "--codebook_size=16", "--codebook_dim=8", "--encoder_hidden=[16]",
    "--sequence_hidden_size=16", "--sequence_layers=1", "--hidden_size=16", "--inner_size=16",
    "--n_heads=2", "--encoder_layers=1", "--decoder_layers=1", "--num_beams=10",
    "--train_batch_size=512", "--tokenizer_batch_size=256", "--num_threads=1",
]  # fmt: skip


def test_table1_counts_the_data(rundir, capsys):
    assert main(["reproduce", "table1", "--datasets", "Mini", "Toys", MINI]) == 0
    rows = {(r["dataset"], r["figure"]): r for r in read_csv("table1")}
    lines = (ROOT / "dataset/Mini/Mini.inter").read_text().splitlines()[1:]
    users, items, *_ = zip(*(line.split("\t") for line in lines))
    assert float(rows["Mini", "users"]["ours"]) == len(set(users))
    assert float(rows["Mini", "items"]["ours"]) == len(set(items))
    assert float(rows["Mini", "interactions"]["ours"]) == len(lines)
    for modality in ("text", "image"):
        listed = (ROOT / f"dataset/Mini/Mini.{modality}.items.txt").read_text().split()
        known = len(set(listed) & set(items))
        assert float(rows["Mini", f"with {modality}"]["ours"]) == known
    assert rows["Toys", "users"]["paper"] == "19412" and rows["Toys", "users"]["ours"] == ""
    text = capsys.readouterr().out
    assert "not prepared / 19,412" in text and "167,597" in text and "misprint" in text


@pytest.fixture
def in_this_process(monkeypatch):
    """Runs of the store are made here: starting a process takes longer than a small run."""

    def process(self, directory, stop):
        with monkeypatch.context() as patch:
            patch.chdir(directory)
            work(directory)
        return 0

    monkeypatch.setattr(OneAfterAnother, "_process", process)


def test_figure3_for_real(rundir, capsys, in_this_process):
    pytest.importorskip("matplotlib", reason="the chart needs matplotlib")
    what = ["reproduce", "figure3", "--datasets", "Mini", "--sweeps", "K", *SMALL]
    assert main(what) == 0, capsys.readouterr().out
    rows = read_csv("figure3")
    assert len(rows) == 16 and {row["status"] for row in rows} == {"done"}
    assert all(0 <= float(row["ours"]) <= 1 for row in rows)
    chart = Path("reproduction/figure3/figure3-Mini.png").read_bytes()
    assert chart.startswith(b"\x89PNG") and len(chart) > 10_000


def test_table5_and_table6_for_real(rundir, capsys, in_this_process):
    what = ["--datasets", "Mini", "--models", "TIGER", *SMALL]
    assert main(["reproduce", "table5", *what]) == 0, capsys.readouterr().out
    counts = [float(row["ours"]) for row in read_csv("table5")]
    assert len(counts) == 3 and counts[0] > counts[2] >= 0  # longer IDs collide less
    assert not list(Path("runs").glob("*/*/*/saved/*.pth"))  # no generator was made
    assert len(list(Path("runs/Mini/TIGER").glob("*/result.json"))) == 3

    assert main(["reproduce", "table6", *what, "--disambiguation=reassign"]) == 0
    rows = read_csv("table6")
    assert [row["figure"] for row in rows] == ["seconds, beam 50", "seconds, beam 100"]
    assert all(0 < float(r["ours"]) <= float(r["p95"]) and r["briefly"] == "True" for r in rows)
    text = capsys.readouterr().out
    assert "Times of this machine" in text and "1 threads" in text and "single epoch" in text
