"""The contract of every model: it trains, reloads, repeats, moves, and ranks as its scores say."""

from __future__ import annotations

import copy
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from recbole_bbqrec.config.config import options_read
from recbole_bbqrec.data.histories import Histories, HistoryBatches
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.generator.inference.exact import exact_scores
from recbole_bbqrec.model.registry import spec
from recbole_bbqrec.model.specs import MODELS
from recbole_bbqrec.nn.optim import build_optimizer
from recbole_bbqrec.quick_start import build_model
from recbole_bbqrec.run_files.epochs import read_epochs
from recbole_bbqrec.trainer.registry import get_trainer_class
from tests.support.contract import DROPOUTS, NAMES, ContractRun, Loaded
from tests.support.second_device import DeviceTensor, second_device

LEARN_NOTHING = ("ItemNeighbours", "STAR", "TGH")
TOPK = (1, 5, 10)
QUICK = (
    "BBQRec",
    "ESASRec",
    "ItemNeighbours",
    "SASRec",
    "STAR",
    "TGH",
)  # one of each kind; the rest are slow


def marked(names) -> list[Any]:
    """Names of models, those that are not quick marked as slow."""
    return [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in names]


TWO_PHASE = marked(name for name in NAMES if spec(name).two_phase)


@pytest.fixture(params=marked(NAMES))
def finished(request, contract_runs) -> ContractRun:
    """The one run of each model that all tests of it share."""
    return contract_runs[request.param]


def metrics(loaded: Loaded) -> dict[str, float]:
    trainer = get_trainer_class(loaded.config["model"])(loaded.config, loaded.model)
    return dict(trainer.evaluate(loaded.test_data, load_best_model=False))


@torch.no_grad()
def full_scores(loaded: Loaded) -> Tensor:
    """Score of every item for every test row, [N, n_items]; padding has -inf."""
    scores = loaded.model.full_sort_predict(loaded.rows).view(len(loaded.rows), -1).clone()
    scores[:, 0] = -torch.inf  # RecBole's evaluation leaves it out, its models do not
    return scores


# training -------------------------------------------------------------------------------------


def test_training_lowers_the_loss_and_moves_the_weights(finished: ContractRun) -> None:
    lines = read_epochs(Path(finished.result["files"]["epochs"]))
    losses = [x["terms"]["loss"] for x in lines if x["phase"] in ("generate", "train")]
    assert len(losses) == 2 and all(map(math.isfinite, losses))
    loaded = finished.loaded
    start = build_model(loaded.config, loaded.train_data).state_dict()
    weights = finished.weights()
    moved = [key for key, value in weights.items() if not torch.equal(value, start[key])]
    if finished.name in LEARN_NOTHING:
        assert losses == [0, 0] and not moved
    else:
        assert losses[1] < losses[0]
        state = loaded.model.state_dict(keep_vars=True)
        parameters = {key for key, value in state.items() if isinstance(value, nn.Parameter)}
        assert len(parameters.intersection(moved)) > len(parameters) / 2


def test_a_seed_gives_one_result(finished: ContractRun) -> None:
    again = finished.again("again")
    assert again["test_result"] == finished.result["test_result"]
    assert again["best_valid_result"] == finished.result["best_valid_result"]
    first, second = finished.weights(), finished.weights(again)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


# files ----------------------------------------------------------------------------------------


def test_a_saved_model_reloads_to_the_metrics_of_its_run(finished: ContractRun) -> None:
    assert metrics(finished.loaded) == finished.result["test_result"]
    assert finished.result["test_result"].keys() == {
        f"{metric}@{k}" for metric in ("recall", "ndcg") for k in TOPK
    }
    # features stay in their own files, unless semantic IDs were made from them
    assert not any("matrix_" in key for key in finished.weights())


# ranking --------------------------------------------------------------------------------------


def ranked_metrics(ranking: Tensor, targets: Tensor) -> dict[str, float]:
    """Recall and NDCG of ranked items [N, K] with one target each, by a loop over users."""
    places = [
        row.index(target) if target in row else None
        for row, target in zip(ranking.tolist(), targets.tolist())
    ]
    values = {}
    for k in TOPK:
        inside = [place for place in places if place is not None and place < k]
        values[f"recall@{k}"] = len(inside) / len(places)
        values[f"ndcg@{k}"] = sum(1 / math.log2(place + 2) for place in inside) / len(places)
    return values


@pytest.mark.parametrize("mask_history", [False, True])
def test_ranks_as_its_full_scores_say(finished: ContractRun, mask_history: bool) -> None:
    scores = full_scores(finished.loaded)
    loaded = finished.load(mask_history=True) if mask_history else finished.loaded
    rows, model = loaded.rows, loaded.model
    histories = rows[model.ITEM_SEQ]
    if mask_history:
        scores = scores.scatter(1, histories, -torch.inf)
    best, items = scores.topk(max(TOPK), dim=1)
    assert bool(torch.isfinite(best).all()) and bool((items > 0).all())
    expected = ranked_metrics(items, rows[model.ITEM_ID])
    assert metrics(loaded) == pytest.approx(expected, abs=2e-6)
    if spec(finished.name).two_phase:
        found = model.rank_interaction(rows)
        torch.testing.assert_close(scores.gather(1, found), best)
        assert not mask_history or not bool((found[:, :, None] == histories[:, None]).any())


def test_one_candidate_is_scored_as_in_the_full_ranking(finished: ContractRun) -> None:
    loaded = finished.loaded
    rows, model = loaded.rows, loaded.model
    target = rows[model.ITEM_ID].unsqueeze(1)
    scores = full_scores(loaded).gather(1, target).squeeze(1)
    assert bool(torch.isfinite(scores).all())
    inside = torch.ones(len(scores), dtype=torch.bool)
    if spec(finished.name).two_phase:  # an item that the beam missed comes after those it has
        beam, _ = model.recommend(rows[model.ITEM_SEQ], rows[model.ITEM_SEQ_LEN], model.num_beams)
        inside = (beam == target).any(1)
    with torch.no_grad():
        found = model.predict(rows)
    assert int(inside.sum()) > 10
    torch.testing.assert_close(found[inside], scores[inside], rtol=1e-4, atol=1e-4)
    assert bool((scores <= found + 1e-3).all())


@pytest.mark.parametrize("finished", TWO_PHASE, indirect=True)
def test_the_full_ranking_goes_on_beyond_the_beam(finished: ContractRun) -> None:
    """RecBole's `full_sort_topk` takes any k; it would fill up with any items at -inf."""
    loaded = finished.loaded
    rows, model = loaded.rows[torch.arange(4)], loaded.model
    scores = model.full_sort_predict(rows)
    assert int(scores.isneginf().sum()) == 4  # [PAD] alone
    beam, _ = model.recommend(rows[model.ITEM_SEQ], rows[model.ITEM_SEQ_LEN], model.num_beams)
    order = scores.argsort(dim=1, descending=True, stable=True)
    assert torch.equal(order[:, : model.num_beams], beam)
    with torch.no_grad():
        memory = model.generator.encode(model.catalogue, rows[model.ITEM_SEQ][:, :20])
    exact = exact_scores(model.generator, model.catalogue, memory)
    outside = scores < scores.gather(1, beam[:, -1:]) - 1e-5
    torch.testing.assert_close(scores[outside], exact[outside].float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("finished", TWO_PHASE, indirect=True)
@pytest.mark.parametrize("history", [[3, 0, 5, 0], [0, 3, 5, 0], [3, 5, 0, 0]])
def test_padding_within_a_history_is_refused(finished: ContractRun, history) -> None:
    items, lengths = torch.tensor([history]), torch.tensor([3])
    with pytest.raises(UserError, match="PAD"):
        finished.loaded.model.recommend(items, lengths, 5)


def test_scores_do_not_depend_on_who_shares_the_batch(finished: ContractRun) -> None:
    loaded = finished.loaded
    rows = loaded.rows
    order = rows[loaded.model.ITEM_SEQ_LEN].argsort()
    chosen = order[[0, 1, len(order) // 2, -1]]  # the shortest lose most of their padding
    with torch.no_grad():
        together = loaded.model.full_sort_predict(rows).view(len(rows), -1)[chosen]
        alone = [loaded.model.full_sort_predict(rows[row.view(1)]).view(-1) for row in chosen]
    torch.testing.assert_close(torch.stack(alone), together, rtol=1e-4, atol=1e-5)


# another device -------------------------------------------------------------------------------


def test_another_device_gives_the_same_numbers(finished: ContractRun) -> None:
    zero = {key: 0.0 for key in DROPOUTS if key in options_read(finished.name, "Mini")}
    loaded = finished.load(**zero)
    histories = Histories.from_training_data(loaded.train_data._dataset)
    batch = next(iter(HistoryBatches(histories, batch_size=64, max_length=20).epoch(0)))
    trained_on, rows = next(iter(loaded.train_data)), loaded.rows[torch.arange(16)]

    def compute(model: Any, where: Any) -> dict[str, Tensor]:
        """Loss, gradients, loss after a step, and scores."""
        values: dict[str, Tensor] = {}

        def loss() -> Tensor:
            torch.manual_seed(2)  # of negatives and masks
            random.seed(2)
            whole = model.history_loss(batch.to(where)) if hasattr(model, "history_loss") else 0
            whole = whole[0] if isinstance(whole, tuple) else whole
            return model.calculate_loss(trained_on.to(where)) + whole

        model.train()
        if hasattr(model, "start_epoch"):
            model.start_epoch(0)
        parameters = dict(model.named_parameters())
        optimizer = build_optimizer(parameters.items(), learning_rate=1e-3, weight_decay=0.1)
        values["before"] = loss()
        values["before"].backward()
        gradients = {key: p.grad for key, p in parameters.items() if p.grad is not None}
        assert gradients
        values.update({f"gradient of {key}": grad.clone() for key, grad in gradients.items()})
        optimizer.step()
        values["after"] = loss()
        model.eval()
        with torch.no_grad():
            values["every"] = model.full_sort_predict(rows.to(where))
            values["one"] = model.predict(rows.to(where))
        return values

    with second_device() as device:
        moved = copy.deepcopy(loaded.model).to(device)
        moved.device = device  # RecBole's own models make tensors there
        expected = compute(loaded.model, "cpu")
        found = compute(moved, device)
        assert expected.keys() == found.keys()
        for key, value in found.items():
            assert isinstance(value, DeviceTensor), key
            torch.testing.assert_close(value.cpu(), expected[key], rtol=1e-3, atol=1e-5, msg=key)


# what the table of models says ----------------------------------------------------------------


@pytest.mark.parametrize("option", ["cooccurrence_weight", "feature_similarity_weight"])
def test_neighbours_act_where_the_table_says(finished: ContractRun, option: str) -> None:
    facts = spec(finished.name)
    acts = facts.ranks_by_neighbours and (option != "cooccurrence_weight" or facts.uses_id)
    if option not in options_read(finished.name, "Mini"):
        assert not acts
        return
    low, high = (full_scores(finished.load(**{option: weight})) for weight in (0.5, 7.0))
    assert torch.equal(low, high) is not acts


def test_only_models_that_read_features_depend_on_them(finished: ContractRun) -> None:
    facts = spec(finished.name)
    if finished.name not in MODELS:
        assert not facts.reads_features
        return
    assert hasattr(finished.loaded.dataset, "item_features") == facts.reads_features
