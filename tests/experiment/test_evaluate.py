"""``evaluate``: finished runs ranked again, as before and under other options."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import pytest
import torch
from scipy import stats

from recbole_bbqrec.cli.main import main
from recbole_bbqrec.experiment.store.launch import OneAfterAnother
from recbole_bbqrec.experiment.store.store import Run, RunStore
from recbole_bbqrec.experiment.store.worker import work
from recbole_bbqrec.generator.inference.exact import exact_scores
from recbole_bbqrec.quick_start import load_data_and_model, run
from recbole_bbqrec.run_files.checkpoint import load_checkpoint, save_checkpoint
from recbole_bbqrec.run_files.per_user import PerUser
from tests.support.counting import check_counted
from tests.support.runs import ROOT, finished_run

SMALL = {
    "data_path": str(ROOT / "dataset"), "epochs": 2, "train_batch_size": 512, "hidden_size": 16,
    "show_progress": False, "state": "WARNING",
}  # fmt: skip
GRU = {**SMALL, "embedding_size": 16}
_ATTENTION = {**SMALL, "n_heads": 2, "inner_size": 16}
BY_MODEL = {"GRU4Rec": GRU, "SASRec": {**_ATTENTION, "n_layers": 1}, "ESASRec": _ATTENTION}


pytestmark = pytest.mark.slow  # every test evaluates trained runs


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Finished runs by model and seed: a history model and RecBole's own."""
    directory = tmp_path_factory.mktemp("runs")
    wanted = [("GRU4Rec", 1), ("GRU4Rec", 2), ("SASRec", 1), ("SASRec", 2), ("ESASRec", 1)]
    return {
        (model, seed): finished_run(
            directory, model, {**BY_MODEL[model], "seed": seed}
        ).files.directory
        for model, seed in wanted
    }


def rows_of(name="out", file="evaluation.csv"):
    with open(Path(name) / file, newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


def values_of(rows):
    return {row["metric"]: float(row["value"]) for row in rows}


def fails(arguments, capsys, *words):
    assert main(["evaluate", *map(str, arguments)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert all(word in error for word in words), error


@pytest.mark.parametrize("split", ["test", "valid"])
@pytest.mark.parametrize("model", ["BBQRec", "ESASRec", "GRU4Rec"])
def test_unchanged_options_give_the_runs_own_metrics(runs, crowded, rundir, capsys, model, split):
    directory = crowded.files.directory if model == "BBQRec" else runs[model, 1]
    assert main(["evaluate", f"{directory}.pth", f"--split={split}", "--output=out"]) == 0
    result = json.loads((directory / "result.json").read_text())
    name = {"test": "test_result", "valid": "best_valid_result"}[split]
    assert values_of(rows_of()) == result[name]
    output = capsys.readouterr().out
    assert "not the metrics" not in output and f"| {model} " in output
    (row, *_) = rows_of()
    assert (row["model"], row["seed"], row["options"]) == (model, str(result["seed"]), "")
    found = PerUser.load(Path("out") / row["per_user"])
    if split == "test":
        kept = PerUser.load(directory / "per_user.npz")
        assert found.split_hash == kept.split_hash and found.users.tolist() == kept.users.tolist()
        for metric, values in kept.metrics.items():
            np.testing.assert_array_equal(found.metrics[metric], values)
    # nothing else is left behind
    assert sorted(path.name for path in rundir.iterdir()) == ["out"]


def brute_force(scores, rows, k, masked=True):
    """Recall and NDCG of a leave-one-out split from all scores; masked: without the history."""
    hits, gains = [], []
    for one, history, target in zip(
        scores.double().numpy(), rows["item_id_list"].tolist(), rows["item_id"].tolist()
    ):
        hidden = set(history) if masked else set()
        left = [item for item in range(1, len(one)) if item not in hidden]
        place = sorted(left, key=lambda item: (-one[item], item)).index(target)
        hits.append(place < k)
        gains.append(1 / np.log2(place + 2) if place < k else 0.0)
    return {f"recall@{k}": mean(hits), f"ndcg@{k}": mean(gains)}


@pytest.mark.parametrize("model", ["BBQRec", "ESASRec", "GRU4Rec"])
def test_masked_history_equals_brute_force(runs, crowded, rundir, model):
    directory = crowded.files.directory if model == "BBQRec" else runs[model, 1]
    options = ["--mask_history=True", "--topk=[7]", "--eval_batch_size=100"]
    if model == "BBQRec":
        options.append("--num_beams=405")  # of 405 items: nothing is pruned
    assert main(["evaluate", str(directory), *options, "--output=out"]) == 0
    config, network, _, _, _, test_data = load_data_and_model(f"{directory}.pth")
    network.eval()
    rows = test_data._dataset.inter_feat
    with torch.no_grad():
        if model == "BBQRec":
            memory = network.generator.encode(network.catalogue, rows["item_id_list"])
            scores = exact_scores(network.generator, network.catalogue, memory)
        else:
            scores = network.full_sort_predict(rows).view(len(rows), -1)
    expected = brute_force(scores, rows, 7)
    assert values_of(rows_of()) == pytest.approx(expected, abs=1e-6)
    assert "mask_history=True" in rows_of()[0]["options"]
    assert config["mask_history"] is False  # and the saved run is as it was


def test_neighbours_can_be_switched_off(crowded, rundir):
    """Against exact scores of the saved weights without it."""
    directory = crowded.files.directory
    weights = ["--cooccurrence_weight=0", "--feature_similarity_weight=0"]
    options = [*weights, "--num_beams=405", "--topk=[7]"]
    assert main(["evaluate", str(directory), *options, "--output=out"]) == 0
    _, network, _, _, _, test_data = load_data_and_model(f"{directory}.pth")
    network.eval()
    rows = test_data._dataset.inter_feat
    both = []
    for catalogue in (network.catalogue, replace(network.catalogue, neighbours=None)):
        memory = network.generator.encode(catalogue, rows["item_id_list"])
        with torch.no_grad():
            both.append(exact_scores(network.generator, catalogue, memory))
    assert not torch.allclose(both[0][:, 1:], both[1][:, 1:], atol=0.1)
    expected = brute_force(both[1], rows, 7, masked=False)
    assert values_of(rows_of()) == pytest.approx(expected, abs=1e-6)
    assert "cooccurrence_weight=0" in rows_of()[0]["options"]


def test_seeds_and_models_together(runs, rundir, capsys):
    """Means, deviations and tests, from the runs' own per-user values."""
    paths = [runs[key] for key in (("SASRec", 1), ("GRU4Rec", 1), ("SASRec", 2), ("GRU4Rec", 2))]
    assert main(["evaluate", *map(str, paths), "--output", "out"]) == 0
    output = capsys.readouterr().out
    values = {
        (row["model"], int(row["seed"])): float(row["value"])
        for row in rows_of()
        if row["metric"] == "ndcg@10"
    }
    for model in ("SASRec", "GRU4Rec"):
        seeds = [values[model, 1], values[model, 2]]
        (line,) = (x for x in output.splitlines() if x.startswith(f"| {model}") and "mean of" in x)
        cell = line.split("|")[8].replace("*", "").replace("<u>", "").replace("</u>", "").strip()
        assert cell == f"{mean(seeds):.4f} ± {stdev(seeds):.4f}"
    (verdict,) = (r for r in rows_of(file="significance.csv") if r["metric"] == "ndcg@10")
    assert (verdict["target"], verdict["baseline"]) == ("SASRec", "GRU4Rec")
    sides = []
    for model in ("SASRec", "GRU4Rec"):
        kept = [PerUser.load(runs[model, seed] / "per_user.npz") for seed in (1, 2)]
        assert kept[0].users.tolist() == kept[1].users.tolist()
        sides.append(np.mean([one.metrics["ndcg@10"].astype(float) for one in kept], axis=0))
    expected = stats.ttest_rel(*sides)
    assert float(verdict["t"]) == pytest.approx(expected.statistic)
    assert float(verdict["p_t_test"]) == pytest.approx(expected.pvalue)
    assert "p, paired t-test" in output and "617 users" in output
    rows = {
        (row["model"], int(row["seed"]), row["targets"]): row
        for row in rows_of(file="by_target.csv")
        if row["metric"] == "ndcg@10"
    }
    for (model, seed), path in runs.items():
        if (model, seed, "all") not in rows:
            continue
        kept = PerUser.load(path / "per_user.npz")
        for group, chosen in (
            ("same day", kept.targets["same_day"]),
            ("later day", ~kept.targets["same_day"]),
            ("transition in training", kept.targets["memorized"]),
        ):
            row = rows[model, seed, group]
            assert int(row["count"]) == chosen.sum() > 0
            assert float(row["value"]) == pytest.approx(kept.metrics["ndcg@10"][chosen].mean())
    assert len(rows) >= 4 * 4 and "| same day" in output


def test_metrics_of_the_whole_ranking_are_not_ranked_or_tested(runs, rundir, capsys):
    paths = [str(runs["GRU4Rec", 1]), str(runs["ESASRec", 1])]
    options = ["--metrics=[Recall,ItemCoverage,AveragePopularity]", "--topk=[3]", "--output=out"]
    assert main(["evaluate", *paths, *options]) == 0
    for path, model in zip(paths, ("GRU4Rec", "ESASRec")):
        found = values_of(row for row in rows_of() if row["model"] == model)
        check_counted(found, f"{path}.pth")
    assert [row["metric"] for row in rows_of(file="significance.csv")] == ["recall@3"]
    capsys.readouterr()


def test_configurations_of_one_model_are_told_apart(runs, rundir, capsys):
    options = {**GRU, "seed": 1, "epochs": 1, "learning_rate": 0.01}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(rundir)
        other = run("GRU4Rec", "Mini", overrides=options)["files"]["model"]
    capsys.readouterr()
    assert main(["evaluate", str(runs["GRU4Rec", 1]), other, str(runs["GRU4Rec", 2])]) == 0
    output = capsys.readouterr().out
    assert "GRU4Rec (2) is GRU4Rec (1) with other `epochs`, `learning_rate`." in output
    (line,) = (line for line in output.splitlines() if "mean of 2" in line)
    assert line.startswith("| GRU4Rec (1)")
    fails([runs["GRU4Rec", 1], f"{runs['GRU4Rec', 1]}.pth"], capsys, "seed 1", "Remove one of them")


def test_a_run_in_a_store(rundir, monkeypatch, capsys):
    def process(self, directory, stop):
        # in this process, which takes less time than to start another
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(directory)
            work(directory)
        return 0

    monkeypatch.setattr(OneAfterAnother, "_process", process)
    (outcome,) = RunStore("runs").ensure([Run("GRU4Rec", "Mini", {**GRU, "epochs": 1})])
    place = outcome.directory
    assert main(["evaluate", str(place), "--output=out"]) == 0
    result = json.loads((place / "result.json").read_text())
    assert values_of(rows_of()) == result["test_result"]
    (place / "result.json").unlink()
    fails([place], capsys, str(place), "not finished")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--epochs=3"], ["`epochs`", "model, mask_history, num_beams"]),
        (["--num_beam=30"], ["`num_beam`", "Did you mean `num_beams`?"]),
        (["--num_beams=30"], ["`num_beams`", "GRU4Rec", "Remove it"]),
        (["--precision=bfloat16"], ["`precision`", "GRU4Rec"]),
        (["--model=ESASRecNeighbours"], ["`model`", "weights of GRU4Rec", "Remove it"]),
        (["--model=ESASRecNeighbour"], ["ESASRecNeighbour`", "Did you mean `ESASRecNeighbours`?"]),
        (["--topk=[406]"], ["`topk`", "405 items"]),
        (["--topk=[]"], ["`topk`", "a list of some"]),
        (["--topk=[0]"], ["`topk`", "at least 1"]),
        (["--metrics=[Recal]"], ["`metrics`", "Recal"]),
        (["--metrics"], ["`--metrics`", "--key=value"]),
        (["--data_path=absent"], ["Mini.inter", "data_path"]),
        (["absent"], ["absent"]),
    ],
)
def test_user_errors(runs, rundir, capsys, options, words):
    fails([runs["GRU4Rec", 1], *options], capsys, *words)


def test_split_without_validation(rundir, capsys):
    """A run of a history model, from end to end."""
    options = {**SMALL, "epochs": 1, "eval_args": {"split": {"LS": "test_only"}}}
    result = run("ESASRec", "Mini", overrides=options)
    assert result["best_valid_score"] is None and result["best_valid_result"] == {}
    path = result["files"]["model"]
    assert main(["evaluate", path, "--output=out"]) == 0
    assert values_of(rows_of()) == result["test_result"] and result["test_result"]["recall@10"] > 0
    capsys.readouterr()
    fails([path, "--split=valid"], capsys, path, "no valid split", "test_only", "--split")


def test_beam_too_narrow_for_the_mask(crowded, runs, rundir, capsys):
    fails([crowded.files.directory, "--mask_history=True"], capsys, "`num_beams` is 20", "30")
    fails([runs["GRU4Rec", 1], crowded.files.directory, "--metrics=[GAUC]"], capsys, "`metrics`")


def test_histories_masked_in_unlike_parts_are_refused(runs, rundir, capsys):
    other = run("GRU4Rec", "Mini", overrides={**SMALL, "MAX_ITEM_LIST_LENGTH": 7, "epochs": 1})
    both = [runs["SASRec", 1], other["files"]["model"]]
    fails([*both, "--mask_history=True"], capsys, "MAX_ITEM_LIST_LENGTH", "20", "7")
    assert main(["evaluate", *map(str, both)]) == 0


def test_other_data_and_other_splits_are_refused(runs, rundir, capsys):
    shutil.copytree(ROOT / "dataset" / "Mini", "data/Mini")
    table = Path("data/Mini/Mini.inter")
    lines = table.read_text(encoding="utf-8").splitlines(keepends=True)
    table.write_text("".join(lines[:-1]), encoding="utf-8")
    fails([runs["GRU4Rec", 1], "--data_path=data"], capsys, "1809786a1347700f", "--data_path")
    # a run on those data, beside one on the others
    other = run("GRU4Rec", "Mini", overrides={**GRU, "data_path": "data", "epochs": 1})
    path = other["files"]["model"]
    fails([runs["SASRec", 1], path], capsys, "split of the data", other["split_hash"], "separately")


def test_runs_with_the_history_treated_differently(runs, rundir, capsys):
    source, copy = runs["GRU4Rec", 1], rundir / "saved" / "masked"
    shutil.copytree(source, copy)
    state = load_checkpoint(f"{source}.pth")
    state["config"] = state["config"].replace("mask_history: false", "mask_history: true")
    save_checkpoint(state, f"{copy}.pth")
    fails([copy, runs["SASRec", 1]], capsys, "`mask_history` is True", "--mask_history=")
    assert main(["evaluate", str(copy), str(runs["SASRec", 1]), "--mask_history=False"]) == 0
    assert "not the metrics" not in capsys.readouterr().out
    # a saved model that does not rank as its result.json says is told
    (copy / "result.json").write_text((copy / "result.json").read_text().replace("0.0", "0.1"))
    assert main(["evaluate", str(copy)]) == 0
    assert "not the metrics of its result.json" in capsys.readouterr().out
