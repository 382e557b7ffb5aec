"""Comparisons: means, marks, tests against SciPy, refusals, failed runs, the written files."""

from __future__ import annotations

import csv
import json
import math
import re
import statistics
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy import stats

from recbole_bbqrec.cli import compare as compare_cli
from recbole_bbqrec.cli.main import main
from recbole_bbqrec.errors import UserError, pip_install
from recbole_bbqrec.experiment.comparison.significance import (
    compare_models,
    holm,
    mean_over_seeds,
    paired_test,
)
from recbole_bbqrec.experiment.comparison.tables import Entry, Table, latex, markdown, marks
from recbole_bbqrec.experiment.store.launch import OneAfterAnother
from recbole_bbqrec.run_files.names import PLAN, RESULT
from recbole_bbqrec.run_files.per_user import PerUser

ROOT = Path(__file__).resolve().parents[2]
USERS = 60


# tests of significance ------------------------------------------------------------------------


def per_user(values, users=None):
    users = np.array([f"u{i}" for i in range(len(values))] if users is None else users)
    metric = np.asarray(values, np.float32)
    return PerUser(users, np.zeros(len(users), np.int32), 10, {"recall@10": metric}, "split")


def test_paired_tests_equal_scipy():
    rng = np.random.default_rng(5)
    first, second = rng.random(40), rng.random(40)
    second[:7] = first[:7]  # ties
    found = paired_test(first, second)
    t, w = stats.ttest_rel(first, second), stats.wilcoxon(first, second)
    assert (found.t, found.p_t) == pytest.approx((t.statistic, t.pvalue))
    assert found.p_wilcoxon == pytest.approx(w.pvalue)
    assert found.difference == pytest.approx(first.mean() - second.mean())
    # by hand: t of the differences 1, 2, 3 is 2 / (1 / sqrt 3)
    assert paired_test(np.array([1.0, 2, 3]), np.zeros(3)).t == pytest.approx(2 * math.sqrt(3))


def test_no_difference_and_the_same_difference():
    same = paired_test(np.ones(5), np.ones(5))
    assert (same.t, same.p_t, same.p_wilcoxon) == (0.0, 1.0, 1.0)
    shifted = paired_test(np.ones(20), np.zeros(20))
    assert shifted.t == math.inf and shifted.p_t == 0.0 and shifted.p_wilcoxon < 0.001


def test_users_are_matched_by_token_and_averaged_over_seeds():
    one, two = per_user([1, 0, 0], ["c", "a", "b"]), per_user([0, 1, 1], ["a", "b", "c"])
    users, values = mean_over_seeds([one, two], "recall@10")
    assert users.tolist() == ["a", "b", "c"] and values.tolist() == [0.0, 0.5, 1.0]
    test = compare_models([one, two], [per_user([0, 0, 1], ["b", "a", "c"])], "recall@10")
    assert test.users == 3 and test.difference == pytest.approx(0.5 / 3)
    with pytest.raises(UserError, match="different users"):
        compare_models([one], [per_user([0, 0, 1], ["x", "a", "c"])], "recall@10")


def test_holm_is_the_closure_of_bonferroni_tests():
    """A hypothesis is rejected if every set of hypotheses with it is, each by Bonferroni."""
    rng = np.random.default_rng(0)
    for size in (1, 2, 3, 5):
        p = rng.random(size) ** 3
        sets = [s for n in range(1, size + 1) for s in combinations(range(size), n)]
        closed = [
            max(min(1.0, len(s) * min(p[list(s)])) for s in sets if one in s) for one in range(size)
        ]
        assert holm(p) == pytest.approx(closed)
    assert holm([0.01, math.nan]) == [0.02, 1.0]


# tables ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.1, 0.3, 0.2], ["", "best", "second"]),
        ([0.30001, 0.3, 0.2], ["best", "best", "second"]),  # print alike
        ([0.2, None, 0.1, 0.2], ["best", "", "second", "best"]),
        ([None, 0.1], ["", "best"]),
    ],
)
def test_marks(values, expected):
    assert marks(values, 4) == expected


TABLE = Table(
    "A & B_1", ["model", "Recall@10"],
    [["M_1", Entry("0.2000", "best", " ± 0.01")], ["50% | x", Entry("0.1000", "second")]],
    [["p", "< 0.001"]], ["See runs/a_b."],
)  # fmt: skip


def test_markdown():
    lines = markdown(TABLE).splitlines()
    assert "**0.2000** ± 0.01" in lines[4] and "<u>0.1000</u>" in lines[5]
    assert r"50% \| x" in lines[5] and "See runs/a_b." in lines
    columns = [len(re.findall(r"(?<!\\)\|", line)) for line in lines[2:7]]
    assert columns == [3] * 5


def test_latex_is_well_formed():
    text = latex(TABLE)
    check_latex(text)
    assert r"M\_1 & \textbf{0.2000} $\pm$ 0.01 \\" in text
    assert r"50\% | x & \underline{0.1000} \\" in text and r"$<$ 0.001" in text


def check_latex(text):
    """Environments nest, braces balance, every row has the declared columns, rules are in place."""
    stack = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if kind == "begin":
            stack.append(name)
        else:
            assert stack.pop() == name
    assert not stack
    plain = re.sub(r"\\[{}]", "", text)
    assert plain.count("{") == plain.count("}")
    for body in re.findall(r"\\begin\{tabular\}(.*?)\\end\{tabular\}", text, re.S):
        columns = len(re.match(r"\{(\w+)\}", body)[1])
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert rows and all(len(re.findall(r"(?<!\\)&", row)) == columns - 1 for row in rows)
        rules = re.findall(r"\\(\w+rule)\b", body)
        assert rules[0] == "toprule" and rules[-1] == "bottomrule" and "midrule" in rules
    unescaped = re.sub(r"\\[&%#_{}$]", "", text)
    assert not re.search(r"[%#_^~]", unescaped)


# the command ----------------------------------------------------------------------------------


@pytest.fixture
def fake_runs(rundir, monkeypatch):
    """The command with runs that end at once: per-user values by model and seed; see ``quality``.

    Returns the list of runs made and the quality (share of hits) of each model, None to fail.
    """
    made, quality = [], {"GRU4Rec": 0.3, "SASRec": 0.6, "TIGER": 0.5}

    def process(self, directory, stop):
        plan = json.loads((directory / PLAN).read_text())
        made.append((plan["model"], plan["seed"]))
        share = quality[plan["model"]]
        if share is None or share == plan["seed"]:
            (directory / "error.txt").write_text("out of memory\n")
            return 1
        rng = np.random.default_rng(plan["seed"])
        values = (rng.random(USERS) < share).astype(np.float32)
        users = np.array([f"u{i}" for i in range(USERS)])
        rank = values.astype(np.int32)
        metrics = {"recall@10": values, "ndcg@10": values / 2}
        PerUser(users, rank, 10, metrics, plan["split_hash"]).save(directory / "per_user.npz")
        result = {
            "test_result": {name: float(v.mean()) for name, v in metrics.items()},
            "files": {"per_user": "per_user.npz"},
        }
        (directory / RESULT).write_text(json.dumps(result))
        return 0

    monkeypatch.setattr(OneAfterAnother, "_process", process)
    return made, quality


def command(*extra, models=("SASRec", "GRU4Rec", "TIGER"), seeds=("2",)):
    return [
        "compare", "--models", *models, "--datasets", "Mini", "--seeds", *seeds,
        f"--data_path={ROOT / 'dataset'}", *extra,
    ]  # fmt: skip


def read_csv(name):
    with open(Path("comparison") / name, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_files_of_a_comparison(fake_runs, capsys):
    pytest.importorskip("matplotlib", reason="the chart needs matplotlib")
    made, _ = fake_runs
    assert main(command()) == 0
    assert sorted(made) == sorted(
        (m, s) for m in ("SASRec", "GRU4Rec", "TIGER") for s in (2020, 2021)
    )
    output = capsys.readouterr().out
    assert "6 runs" in output and "0 there, 6 to run" in output

    rows = {(row["model"], row["metric"]): row for row in read_csv("results.csv")}
    assert len(rows) == 6
    for row in rows.values():
        values = [float(value) for value in row["values"].split()]
        assert float(row["mean"]) == pytest.approx(statistics.mean(values))
        assert float(row["std"]) == pytest.approx(statistics.stdev(values))
    order = sorted(("SASRec", "GRU4Rec", "TIGER"), key=lambda m: -float(rows[m, "ndcg@10"]["mean"]))
    assert [rows[m, "ndcg@10"]["mark"] for m in order] == ["best", "second", ""]

    verdict, other = (r for r in read_csv("significance.csv") if r["metric"] == "recall@10")
    assert {verdict["target"], other["target"]} == {"SASRec"}
    assert (verdict["baseline"], other["baseline"]) == ("TIGER", "GRU4Rec")  # the best first
    means = [float(rows[m, "recall@10"]["mean"]) for m in ("SASRec", "TIGER")]
    assert float(verdict["improvement"]) == pytest.approx(means[0] / means[1] - 1)
    seeds = [
        [(np.random.default_rng(s).random(USERS) < q) for s in (2020, 2021)] for q in (0.6, 0.5)
    ]
    first, second = (np.mean(values, axis=0) for values in seeds)
    assert float(verdict["p_t_test"]) == pytest.approx(stats.ttest_rel(first, second).pvalue)
    assert float(verdict["p_wilcoxon"]) == pytest.approx(stats.wilcoxon(first, second).pvalue)

    p_values = [float(row["p_t_test"]) for row in (verdict, other)]
    corrected = [float(row["p_t_test_holm"]) for row in (verdict, other)]
    assert corrected == pytest.approx(holm(p_values)) and corrected != p_values

    folder = Path("comparison")
    text = (folder / "table.md").read_text()
    assert "corrected for 2 other models (Holm)" in text
    assert text.rstrip() in output and "**" in text and "<u>" in text and "2020, 2021" in text
    check_latex((folder / "table.tex").read_text())
    assert (folder / "chart.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "chart.svg").read_text(encoding="utf-8").startswith("<?xml")

    made.clear()
    assert main(command("--dry_run", models=["SASRec", "GRU4Rec"], seeds=["2021", "2022"])) == 0
    assert "2021 there, 2022 to run" in capsys.readouterr().out and not made
    assert main(command()) == 0
    assert not made


@pytest.mark.slow
def test_failed_runs_are_named_in_their_cell_and_the_rest_goes_on(fake_runs, capsys):
    made, quality = fake_runs
    quality.update(GRU4Rec=None, TIGER=2021)
    assert main(command()) == 1
    assert len(made) == 6
    output = capsys.readouterr().out
    assert "FAILED" in output and "out of memory" in output
    (row,) = (line for line in output.splitlines() if line.startswith("| GRU4Rec"))
    log = re.search(r"failed: see (\S+)", row)[1]
    assert log.endswith("run.log") and "GRU4Rec" in log
    (partial,) = (line for line in output.splitlines() if line.startswith("| TIGER"))
    assert "(1 of 2 seeds)" in partial and "**" not in partial and "<u>" not in partial
    assert read_csv("significance.csv") == []  # no complete baseline is left
    rows = {(row["model"], row["metric"]): row for row in read_csv("results.csv")}
    assert (
        rows["GRU4Rec", "recall@10"]["mean"] == "" and rows["TIGER", "recall@10"]["failed"] == "1"
    )
    quality.update(SASRec=None, TIGER=None)
    assert main(command(seeds=["7", "8"])) == 1  # nothing finished: still a table of failures
    assert capsys.readouterr().out.count("failed: see") == 3


@pytest.mark.slow
def test_metrics_without_a_value_a_user_are_neither_ranked_nor_tested(
    fake_runs, capsys, monkeypatch
):
    """More is not always better of RecBole's metrics without users, such as GiniIndex."""
    process = OneAfterAnother._process

    def with_gini(self, directory, stop):
        code = process(self, directory, stop)
        if (directory / RESULT).is_file():
            result = json.loads((directory / RESULT).read_text())
            gini = {"SASRec": 0.4, "GRU4Rec": 0.3, "TIGER": 0.2}[directory.parent.name]
            result["test_result"]["giniindex@10"] = gini
            (directory / RESULT).write_text(json.dumps(result))
        return code

    monkeypatch.setattr(OneAfterAnother, "_process", with_gini)
    _, quality = fake_runs
    quality.update(TIGER=None)  # one that failed changes nothing in that
    assert main(command()) == 1
    output = capsys.readouterr().out
    rows = {(row["model"], row["metric"]): row for row in read_csv("results.csv")}
    assert {model: rows[model, "giniindex@10"]["mark"] for model in ("SASRec", "GRU4Rec")} == {
        "SASRec": "", "GRU4Rec": "",
    }  # fmt: skip
    assert rows["SASRec", "giniindex@10"]["mean"] == "0.4"
    assert rows["SASRec", "recall@10"]["mark"] == "best"
    assert [row["metric"] for row in read_csv("significance.csv")] == ["recall@10", "ndcg@10"]
    (row,) = (line for line in output.splitlines() if line.startswith("| SASRec  "))
    (over,) = (line for line in output.splitlines() if line.startswith("| SASRec over it"))
    assert row.split("|")[-2].strip().startswith("0.4000") and "**" not in row.split("|")[-2]
    assert over.split("|")[-2].strip() == "" and "%" in over
    assert "neither ranked nor tested: Giniindex@10." in output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (command(models=["SASRec", "GRU4Rek"]), ["GRU4Rek", "`GRU4Rec`"]),
        (command("--datasets", "Mimi"), ["Mimi"]),
        (command("--target", "SASREC"), ["--target", "SASREC"]),
        (command(models=["SASRec", "SASRec"]), ["SASRec twice"]),
        (command(seeds=["2020"]), ["--seeds", "seed=2020"]),
        (command(seeds=["1", "1"]), ["--seeds"]),
        (command("--epoch=1"), ["epoch", "`epochs`"]),
        (command("--epochs"), ["--epochs", "--key=value"]),
        (command("--set", "epochs"), ["--set", "KEY=VALUE"]),
        (command("--interest_ratio=0.3"), ["interest_ratio", "SASRec, GRU4Rec, TIGER"]),
        (command("--TIGER.n_layers=2"), ["n_layers", "TIGER", "`encoder_layers`"]),
        (command("--n_heads=2", models=["GRU4Rec"]), ["n_heads", "init NAME --model=GRU4Rec"]),
        (command("--enable_amp=True", models=["TIGER"]), ["enable_amp", "`precision`"]),
        (command("--BERT4Rec.epochs=1"), ["BERT4Rec", "SASRec"]),
        (command("--config_files", "absent.yaml"), ["absent.yaml"]),
        (command("--SASRec.mask_history=True"), ["mask_history", "SASRec Mini", "GRU4Rec"]),
        (command("--mask_history=True", "--SASRec.MAX_ITEM_LIST_LENGTH=30"),
         ["MAX_ITEM_LIST_LENGTH", "30", "20", "GRU4Rec"]),
        (command("--SASRec.user_inter_num_interval=[9,inf)"), ["split", "GRU4Rec"]),
        (command("--SASRec.eval_args={'mode': 'uni100', 'split': {'LS': "
                 "'valid_and_test'}, 'order': 'TO'}"), ["mode"]),
        (command("--model=SASRec"), ["`--model`", "`--models`", "compare --help"]),
        (command("--sedes=3"), ["`--sedes=3`", "`--seeds`"]),
        (command("--show=recall@5,ndgc@10"), ["--show", "ndgc@10", "`ndcg@10`"]),
    ],
)  # fmt: skip
def test_refused_before_anything_runs(fake_runs, capsys, arguments, words):
    made, _ = fake_runs
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert all(word in error for word in words), error
    assert not made


@pytest.mark.slow
def test_an_option_for_all_goes_to_the_models_that_read_it(fake_runs, capsys):
    """The others are the runs that they are without it, found again."""
    made, _ = fake_runs
    assert main(command(seeds=["1"])) == 0
    assert len(made) == 3
    assert main(command("--n_heads=1", "--TIGER.n_heads=2", "--MAX_ITEM_LIST_LENGTH=20",
                        seeds=["1"])) == 0  # fmt: skip
    assert [model for model, _ in made[3:]] == ["SASRec", "TIGER"]
    assert "`n_heads` is left out for GRU4Rec: not read there" in capsys.readouterr().out
    heads = {model: set() for model, _ in made}
    for path in Path("runs/Mini").glob("*/*/config.yaml"):
        heads[path.parents[1].name].add(yaml.safe_load(path.read_text()).get("n_heads"))
    assert heads["GRU4Rec"] == {None} and 1 in heads["SASRec"] and 2 in heads["TIGER"]


def test_without_matplotlib_all_but_the_chart(fake_runs, capsys, monkeypatch):
    def absent(comparison, path, shown, form):
        raise ImportError("No module named 'matplotlib'")

    monkeypatch.setattr(compare_cli, "save_chart", absent)
    Path("comparison").mkdir()
    for name in (".chart.png.abcdefgh.tmp", ".results.csv.12345678.tmp"):  # of a killed process
        (Path("comparison") / name).write_text("half")
    assert main(command()) == 0
    assert pip_install("plots") in capsys.readouterr().out
    left = sorted(path.name for path in Path("comparison").iterdir())
    assert left == ["results.csv", "significance.csv", "table.md", "table.tex"]


@pytest.mark.slow
def test_compare_for_real(rundir, capsys):
    """Two models trained in processes of their own, to the table."""
    options = ["--epochs=1", "--train_batch_size=512", "--hidden_size=16", "--embedding_size=16",
               "--num_threads=1", "--SASRec.n_layers=1", "--SASRec.inner_size=16"]  # fmt: skip
    arguments = command(*options, models=["SASRec", "GRU4Rec"], seeds=["1"])
    assert main(arguments) == 0, capsys.readouterr().out
    rows = read_csv("results.csv")
    assert {row["model"] for row in rows} == {"SASRec", "GRU4Rec"}
    for row in rows:
        (path,) = Path("runs/Mini").glob(f"{row['model']}/2020-*/result.json")
        assert json.loads(path.read_text())["test_result"][row["metric"]] == float(row["mean"])
    assert all(0 <= float(row["p_t_test"]) <= 1 for row in read_csv("significance.csv"))


def test_of_many_metrics_a_few_are_shown(fake_runs, capsys, monkeypatch):
    """The CSV has them all; --show chooses others."""
    process = OneAfterAnother._process
    names = [f"{name}@{k}" for name in ("recall", "mrr", "ndcg") for k in (1, 5, 10, 20, 50)]

    def with_more(self, directory, stop):
        code = process(self, directory, stop)
        result = json.loads((directory / RESULT).read_text())
        result["test_result"] = dict.fromkeys(names, 0.1)
        (directory / RESULT).write_text(json.dumps(result))
        return code

    drawn = []
    monkeypatch.setattr(OneAfterAnother, "_process", with_more)
    monkeypatch.setattr(compare_cli, "save_chart", lambda c, path, shown, form: drawn.append(shown))
    options = ["--topk=[1,5,10,20,50]", "--metrics=[Recall,MRR,NDCG]", "--TIGER.num_beams=50"]
    assert main(command(*options, seeds=["1"])) == 0
    (header,) = (x for x in capsys.readouterr().out.splitlines() if x.startswith("| model  "))
    titles = [title.strip() for title in header.split("|")[2:-1]]
    assert titles == ["Recall@5", "Recall@10", "NDCG@5", "NDCG@10"]
    table = Path("comparison/table.tex").read_text()
    assert "{lcccc}" in table and "11 more metrics" in table
    check_latex(table)
    assert len(read_csv("results.csv")) == 3 * len(names)
    assert main(command(*options, "--show=MRR@50,recall@1", seeds=["1"])) == 0
    assert "{lcc}" in Path("comparison/table.tex").read_text()
    few = ["recall@5", "recall@10", "ndcg@5", "ndcg@10"]
    assert drawn == [few, few, ["mrr@50", "recall@1"], ["mrr@50", "recall@1"]]  # PNG and SVG


def test_options_of_other_models_in_a_file_are_said_once(rundir, capsys):
    Path("all.yaml").write_text("n_layers: 3\n")
    words = ["--models=TIGER,SASRec", "--datasets=Mini", "--seeds=2", "--dry_run"]
    data = f"--data_path={ROOT / 'dataset'}"
    assert main(["compare", *words, data, "--config_files=all.yaml"]) == 0
    output = capsys.readouterr().out
    assert output.count("TIGER does not read these options of the config files") == 1
    assert output.count("does not read") == 1
    assert "`n_layers` (read here: `encoder_layers`)" in output
