"""ItemNeighbours, alone and in ESASRec: whole runs, and scores against loops over a history."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from recbole_bbqrec.cli.main import main
from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.data.histories import Histories
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.model.parts.item_features import item_features
from recbole_bbqrec.model.parts.neighbour_graph import alike, chosen_after
from recbole_bbqrec.model.settings import FeatureSettings
from recbole_bbqrec.quick_start import load_data_and_model, run
from tests.support.fused import SMALL
from tests.support.runs import ROOT

OPTIONS = {"data_path": str(ROOT / "dataset"), "show_progress": False, "state": "WARNING"}


def test_a_run_ranks_by_the_definition(rundir):
    changes = {"cooccurrence_weight": 3.0, "feature_similarity_weight": 0.5}
    result = run("ItemNeighbours", "Mini", overrides={**OPTIONS, **changes})
    _, model, dataset, train, _, test = load_data_and_model(result["files"]["model"])
    source = train._dataset
    features = item_features(source, source.modalities, FeatureSettings("zscore", 512, True))
    after = chosen_after(Histories.from_training_data(source), model.n_items).toarray()
    similar = alike(features).toarray()
    rows = test._dataset.inter_feat
    scores = model.full_sort_predict(rows)
    assert scores.shape == (len(rows), dataset.item_num) and scores.dtype == torch.float32
    assert torch.isneginf(scores[:, 0]).all()
    for row in range(0, len(rows), 97):
        length = int(rows["item_length"][row])
        history = rows["item_id_list"][row, :length].tolist()
        expected = sum(
            0.6**ago * (3.0 * after[item] + 0.5 * similar[item])
            for ago, item in enumerate(reversed(history))
        )
        torch.testing.assert_close(
            scores[row, 1:], torch.from_numpy(expected[1:]).float(), rtol=1e-5, atol=1e-6
        )
    hits = (scores.topk(10).indices == rows["item_id"].unsqueeze(1)).any(1)
    assert result["test_result"]["recall@10"] == pytest.approx(float(hits.float().mean()), abs=1e-6)


def test_without_any_weight_there_is_nothing_to_rank_by():
    for changes in (
        {"cooccurrence_weight": 0, "feature_similarity_weight": 0},
        {"cooccurrence_weight": 0, "modalities": []},
    ):
        with pytest.raises(UserError, match="`cooccurrence_weight`.*nothing is left to rank by"):
            BBQRecConfig("ItemNeighbours", "Mini", overrides={**OPTIONS, **changes})


@pytest.mark.slow
def test_a_finished_run_can_be_evaluated_under_other_weights(rundir):
    finished = run("ItemNeighbours", "Mini", overrides=OPTIONS)
    wanted = run("ItemNeighbours", "Mini", overrides={**OPTIONS, "cooccurrence_weight": 0})
    path = finished["files"]["model"].removesuffix(".pth")
    assert main(["evaluate", path, "--cooccurrence_weight=0", "--output=out"]) == 0
    rows = csv.DictReader(Path("out/evaluation.csv").read_text().splitlines())
    found = {row["metric"].lower(): float(row["value"]) for row in rows}
    assert found == pytest.approx(wanted["test_result"], abs=1e-6)
    assert wanted["test_result"] != finished["test_result"]


@pytest.mark.slow
def test_without_features_it_ranks_by_who_chose_what(rundir):
    """Ranks as a weight of 0 for the features does, and otherwise than features do."""
    changes = ({"modalities": []}, {"feature_similarity_weight": 0}, {})
    found = [
        run("ItemNeighbours", "Mini", overrides={**OPTIONS, **change})["test_result"]
        for change in changes
    ]
    assert found[0] == found[1] != found[2]


@pytest.mark.slow
@pytest.mark.parametrize(("base", "after", "alike"), [("ESASRec", 3.0, 3.0), ("VQRec", 3.0, 2.0)])
def test_a_model_with_neighbours_adds_their_scores(rundir, base, after, alike):
    """Trained as its base, scores that are the sum of both, and its base at weights of 0."""
    changes = {**OPTIONS, **SMALL[base], "hidden_size": 16, "epochs": 2, "eval_step": 0}
    result = run(f"{base}Neighbours", "Mini", overrides=changes)
    plain = run(base, "Mini", overrides=changes)
    weights = {"cooccurrence_weight": after, "feature_similarity_weight": alike}
    alone = run("ItemNeighbours", "Mini", overrides={**OPTIONS, **weights})
    found = []
    for files in (result["files"], plain["files"], alone["files"]):
        _, model, _, _, _, test = load_data_and_model(files["model"])
        found.append(model.full_sort_predict(test._dataset.inter_feat))
    torch.testing.assert_close(found[0][:, 1:], found[1][:, 1:] + found[2][:, 1:])
    assert torch.isneginf(found[0][:, 0]).all()
    path = result["files"]["model"].removesuffix(".pth")
    options = ["--cooccurrence_weight=0", "--feature_similarity_weight=0", "--output=out"]
    assert main(["evaluate", path, *options]) == 0
    rows = csv.DictReader(Path("out/evaluation.csv").read_text().splitlines())
    metrics = {row["metric"].lower(): float(row["value"]) for row in rows}
    assert metrics == pytest.approx(plain["test_result"], abs=1e-6)
    assert plain["test_result"] != result["test_result"]
    # and the other way round: a run of the base, ranked with neighbours
    path = plain["files"]["model"].removesuffix(".pth")
    assert main(["evaluate", path, f"--model={base}Neighbours", "--output=with"]) == 0
    rows = list(csv.DictReader(Path("with/evaluation.csv").read_text().splitlines()))
    metrics = {row["metric"].lower(): float(row["value"]) for row in rows}
    assert metrics == pytest.approx(result["test_result"], abs=1e-6)
    assert {(row["model"], row["options"]) for row in rows} == {
        (f"{base}Neighbours", f"model={base}Neighbours")
    }
