"""Options that give a baseline the form of its authors' release, against formulas of their own."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.config.values import read_yaml
from recbole_bbqrec.config.yaml_files import properties_directory
from recbole_bbqrec.data.histories import Histories, HistoryBatches
from recbole_bbqrec.nn.transformer import Attention, CausalEncoder, FeedForward
from recbole_bbqrec.tokenizer.rqvae.letter import diversity_loss_of_items, draw_partners
from recbole_bbqrec.trainer.history_trainer import HistoryTrainer
from tests.support.fused import build, history_batch, options

PAPER_FILES = sorted((properties_directory() / "model").glob("*.paper.yaml"))


@pytest.mark.parametrize("path", PAPER_FILES, ids=lambda path: path.name.split(".")[0])
def test_every_released_value_is_an_option_of_its_model(path: Path):
    name = path.name.split(".")[0]
    config = BBQRecConfig(name, "nowhere", [path])
    assert not config.warnings
    default = BBQRecConfig(name, "nowhere")
    same = [key for key in config.explicit if config[key] == default[key]]
    assert set(same) <= {"learner"}, f"{path.name} repeats defaults"


@pytest.mark.parametrize("name", ["ESASRec", "MISSRec", "RPG", "VQRec"])
def test_the_released_form_learns_from_a_batch(name):
    released = read_yaml(properties_directory() / "model" / f"{name}.paper.yaml")
    model, data = build(name, **{**released, "hidden_size": 16, "inner_size": 32})
    batch = history_batch(data)
    if model.encoding == "bidirectional":
        histories = Histories.from_training_data(data.train_data._dataset)
        batches = HistoryBatches(histories, batch_size=32, encoding="bidirectional", seed=1)
        batch = next(iter(batches.epoch(0)))
    model.start_epoch(0)
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = model.history_loss(batch)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


# positions, dropout -----------------------------------------------------------------------------


def normalised(x):
    return (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, keepdim=True, correction=0) + 1e-5)


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("from_last", [False, True])
def test_positions_before_or_after_the_norm_from_either_end(before, from_last):
    encoder = CausalEncoder(6, 0, 1, 8, 4, 0.0, norm_positions=before, from_last=from_last)
    torch.nn.init.normal_(encoder.position.weight, std=3.0)
    vectors = torch.randn(2, 4, 6)
    lengths = [4, 2]
    valid = torch.arange(4) < torch.tensor(lengths)[:, None]
    found = encoder(vectors, valid)
    for row, length in enumerate(lengths):
        for place in range(length):
            count = length - 1 - place if from_last else place
            position = encoder.position.weight[count]
            x = vectors[row, place]
            x = normalised(x + position) if before else normalised(x) + position
            torch.testing.assert_close(found[row, place], normalised(x), rtol=1e-4, atol=1e-4)


def test_attention_weights_and_hidden_units_are_dropped():
    """A known mask in place of the random ones: attention by hand, one head."""
    torch.manual_seed(0)
    layer, feed = Attention(4, 1, 0.0, 0.5), FeedForward(4, 5, 0.0, 0.5)
    x, keep = torch.randn(1, 3, 4), torch.tensor([[1.0, 0, 0], [0, 1, 1], [1, 1, 0]])
    assert layer.attention_dropout.p == 0.5 and feed.inner_dropout.p == 0.5
    layer.attention_dropout = torch.nn.Module()
    layer.attention_dropout.forward = lambda weights: weights * keep * 2
    normed = normalised(x[0])
    query = normed @ layer.query.weight.T
    key, value = (normed @ layer.key_value.weight.T).chunk(2, -1)
    weights = (query @ key.T / 2).softmax(-1) * keep * 2
    wanted = x[0] + weights @ value @ layer.out.weight.T
    for linear in (layer.query, layer.key_value, layer.out):
        torch.nn.init.zeros_(linear.bias)
    everywhere = torch.ones(1, 3, 3, dtype=torch.bool)
    torch.testing.assert_close(layer(x, everywhere)[0], wanted, rtol=1e-4, atol=1e-4)
    feed.inner_dropout = torch.nn.Module()
    feed.inner_dropout.forward = lambda hidden: hidden * 0
    torch.testing.assert_close(feed(x), x + feed.outer.bias)


# ESASRec ----------------------------------------------------------------------------------------


def test_esasrec_in_the_released_form():
    changes = {
        "input_norm": False, "history_positions": "last", "initialization": "xavier",
        "adam_betas": [0.9, 0.98],
    }  # fmt: skip
    model, _ = build("ESASRec", **changes)
    assert isinstance(model.encoder.input_norm, torch.nn.Identity)
    table = model.item_embedding.weight.detach()
    assert not table[0].any()
    rows, width = table.shape
    assert float(table[1:].std()) == pytest.approx(math.sqrt(2 / (rows + width)), rel=0.05)
    config = BBQRecConfig("ESASRec", "Mini", overrides=options("ESASRec", **changes))
    assert HistoryTrainer(config, model).optimizer.param_groups[0]["betas"] == (0.9, 0.98)
    # The last item has the same position whatever stands before: without it, the same state.
    seen = []
    model.encoder.attentions[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model.states(torch.tensor([[7, 8, 9, 4], [9, 4, 0, 0]]))
    torch.testing.assert_close(seen[0][0, 2:], seen[0][1, :2])


# codes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["VQRec", "RPG"])
@pytest.mark.parametrize(("scale", "deviation"), [("item", 0.02 * math.sqrt(4)), ("code", 0.02)])
def test_initial_scale_of_code_embeddings(name, scale, deviation):
    model, _ = build(name, code_scale=scale)
    table = model.item_codes.code_embedding.detach()  # 64 x 16
    assert float(table.std()) == pytest.approx(deviation, rel=0.1)


# MISSRec ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("score", ["mean", "sum"])
def test_missrec_score_with_one_modality(score):
    model, _ = build("MISSRec", modalities=["text"], one_modality_score=score)
    torch.manual_seed(0)
    states, found = torch.randn(3, 16), model.representations().detach()
    logits = model.fused_logits(states, found).detach()
    lacking = int((~model.known[1:, 1]).nonzero()[0]) + 1
    for item in (1, 2, lacking):
        by_id, text = found[item]
        for row, state in enumerate(states):
            cosines = [float(F.cosine_similarity(state, v, 0)) for v in (by_id, text, by_id + text)]
            mean = cosines[0] if item == lacking else sum(cosines[:2]) / 2
            wanted = {"mean": mean, "sum": cosines[2]}[score] / model.temperature
            assert float(logits[row, item - 1]) == pytest.approx(wanted, rel=1e-4, abs=1e-4)


def test_missrec_clusters_in_the_released_form():
    """Density by the released rule, written out: distances over sqrt(D), a point among its k."""
    model, _ = build("MISSRec", interest_clustering="released", interest_neighbours=0.05)
    model.update_interests()
    modal = model._mean_known(model.representations()[:, 1:], model.known[:, 1:]).detach()
    items = model.known[:, 1:].any(1).nonzero().squeeze(1)
    points = modal[items].double().numpy()
    distance = np.sqrt(((points[:, None] - points) ** 2).sum(-1)) / math.sqrt(points.shape[1])
    k = round(0.05 * len(points))
    density = np.exp(-np.mean(np.sort(distance, 1)[:, :k] ** 2, 1))
    separation = [
        distance[i][density > density[i]].min()
        if (density > density[i]).any()
        else distance[i].max()
        for i in range(len(points))
    ]
    centres = np.argsort(-density * separation, kind="stable")[: model.n_interests]
    wanted = distance[:, centres].argmin(1)
    found = model.interest_of[items].numpy() - 1
    same = (found[:, None] == found) == (wanted[:, None] == wanted)
    assert same.mean() > 0.99  # float32 may order a few near ties otherwise


# LETTER -----------------------------------------------------------------------------------------


def test_diversity_with_a_partner_for_each_item():
    book = torch.randn(6, 3, dtype=torch.float64)
    used, partners = torch.tensor([0, 4, 4, 1]), torch.tensor([2, 5, 3, 0])
    expected = 0.0
    for code, partner in zip(used.tolist(), partners.tolist()):
        scores = {j: math.exp(float(book[code] @ book[j])) for j in range(6) if j != code}
        expected -= math.log(scores[partner] / sum(scores.values())) / len(used)
    assert float(diversity_loss_of_items(book, partners, used)) == pytest.approx(expected)


def test_items_of_one_code_draw_partners_of_their_own():
    clusters = torch.tensor([0, 0, 0, 1, 1, 0])
    used = torch.tensor([0] * 200 + [3] * 5)
    drawn = draw_partners(clusters, used)
    assert set(drawn[:200].tolist()) == {1, 2, 5} and set(drawn[200:].tolist()) == {4}
