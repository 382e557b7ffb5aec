"""NOVA-BERT: side information steers attention, never the values, and never names the target."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from recbole_bbqrec.model.parts.non_invasive import FUSIONS, SideFusion
from recbole_bbqrec.model.sequential_recommender import novabert
from tests.support.fused import build, rows_of_test


def perturb(model, item: int) -> None:
    """Change everything that is known of an item besides its ID."""
    for number in range(len(model.features.names)):
        row = model.features.matrix(number)[item]
        row += 3 * torch.randn(row.shape)
        model.features.present[item, number] = True


def sharpen(model) -> None:
    """Weights large enough that attention is far from uniform."""
    for attention in model.trm_encoder.attentions:
        torch.nn.init.normal_(attention.query.weight, std=0.5)
        torch.nn.init.normal_(attention.key.weight, std=0.5)


def flatten(model) -> None:
    """Uniform attention in every layer, whatever queries and keys are made of."""
    for attention in model.trm_encoder.attentions:
        torch.nn.init.zeros_(attention.query.weight)
        torch.nn.init.zeros_(attention.query.bias)


def test_loss_and_scores_do_not_depend_on_who_shares_the_pass(monkeypatch):
    model, data = build("NOVABERT")
    sharpen(model)
    rows = data.train_data._dataset.inter_feat[torch.arange(40, 60)]
    items, lengths = rows[model.ITEM_SEQ], rows[model.ITEM_SEQ_LEN]
    assert len(lengths.unique()) > 3
    masked = model.choose_masked(items, lengths - 1)
    states = model(items.masked_fill(masked, model.mask_token))[masked]
    expected = F.cross_entropy(model.item_logits(states), items[masked])
    longer, place = model.append(items, lengths, torch.full_like(lengths, model.mask_token))
    scores = model.item_logits(model(longer)[torch.arange(20), place])
    for size in (3, 128):
        monkeypatch.setattr(novabert, "_ROWS", size)
        torch.testing.assert_close(model.masked_loss(items, masked), expected)
        torch.testing.assert_close(model.full_sort_predict(rows), scores)


def test_no_dropout_of_recbole_is_left():
    model, _ = build("NOVABERT", hidden_dropout_prob=0.25, attn_dropout_prob=0.5)
    assert not any(type(module) is torch.nn.Dropout for module in model.modules())
    attention = model.trm_encoder.attentions[0]
    assert (model.dropout.p, attention.attn_dropout.p, attention.out_dropout.p) == (0.25, 0.5, 0.25)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_features_of_masked_items_do_not_reach_the_loss(fusion):
    model, _ = build("NOVABERT", nova_fusion=fusion)
    sharpen(model)
    items = torch.tensor([[3, 4, 5, 6, 7] + [0] * 15, [8, 9, 10] + [0] * 17])
    masked = torch.zeros_like(items, dtype=torch.bool)
    masked[0, 2] = masked[0, 4] = masked[1, 2] = True
    before = model.masked_loss(items, masked)
    for target in (5, 7, 10):
        perturb(model, target)
    torch.testing.assert_close(model.masked_loss(items, masked), before, rtol=0, atol=0)
    perturb(model, 4)  # a neighbour that is not masked does matter
    assert model.masked_loss(items, masked) != before


def test_features_of_the_candidates_do_not_reach_the_ranking():
    """Features of the history alone are read at test time."""
    model, data = build("NOVABERT")
    sharpen(model)
    rows = rows_of_test(data, 1)
    history = set(rows[model.ITEM_SEQ].flatten().tolist())
    before = model.full_sort_predict(rows)
    for item in range(1, model.n_items):
        if item not in history:
            perturb(model, item)
    torch.testing.assert_close(model.full_sort_predict(rows), before, rtol=0, atol=0)
    perturb(model, int(rows[model.ITEM_SEQ][0, 0]))
    assert not torch.equal(model.full_sort_predict(rows), before)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("layers", [1, 2])
def test_side_information_stays_out_of_the_values(fusion, layers):
    """Neither features nor positions change anything while attention is frozen to uniform."""
    model, _ = build("NOVABERT", nova_fusion=fusion, n_layers=layers)
    sharpen(model)
    items = torch.tensor([[3, 4, 5, 6, 7] + [0] * 15])
    order = torch.tensor([4, 2, 0, 1, 3] + list(range(5, 20)))
    invasive = model(items)
    perturb(model, 4)
    assert not torch.allclose(model(items), invasive)
    assert not torch.allclose(model(items[:, order]), model(items)[:, order])
    flatten(model)
    frozen = model(items)
    perturb(model, 4)
    torch.testing.assert_close(model(items), frozen, rtol=0, atol=0)
    moved = model(items[:, order])[:, :5]
    torch.testing.assert_close(moved, frozen[:, order][:, :5])


def test_sides_are_zero_for_padding_masks_and_missing_modalities():
    model, _ = build("NOVABERT")
    torch.nn.init.constant_(model.feature_norm.bias, 2.0)
    present = model.features.present
    whole = int(present.all(1).nonzero()[0])
    lacking = int((~present[1:, 1]).nonzero()[0]) + 1
    items = torch.tensor([[whole, lacking, model.mask_token, 0]])
    sides = model.side_information(items)  # [1, 4, 2 + 1, 16]
    assert sides.shape == (1, 4, 3, 16)
    zero = (sides == 0).all(-1)[0]  # [4, 3]
    assert zero[:, :2].tolist() == [
        [False, False], [not bool(present[lacking, 0]), True], [True, True], [True, True]
    ]  # fmt: skip
    assert not bool(zero[:, 2].any())  # position
    longer = model.side_information(torch.cat([items, items], dim=1))
    torch.testing.assert_close(longer[:, :4], sides)
    assert not torch.allclose(longer[:, 4:, 2], sides[:, :, 2])


@pytest.mark.parametrize("fusion", FUSIONS)
def test_fusion_against_float64(fusion):
    torch.manual_seed(0)
    module = SideFusion(6, 2, fusion).double()
    x, sides = torch.randn(3, 4, 6).double(), torch.randn(3, 4, 2, 6).double()
    sources = [x, sides[:, :, 0], sides[:, :, 1]]
    if fusion == "add":
        expected = sources[0] + sources[1] + sources[2]
    elif fusion == "concat":
        expected = torch.cat(sources, -1) @ module.mix.weight.T + module.mix.bias
    else:
        scores = [torch.exp(s @ module.gate.weight[0] + module.gate.bias) for s in sources]
        expected = sum(s * (e / sum(scores)).unsqueeze(-1) for s, e in zip(sources, scores))
    torch.testing.assert_close(module(x, sides), expected)


def test_append_drops_the_oldest_of_a_full_history_only():
    model, _ = build("NOVABERT")
    items = torch.tensor([[1, 2, 0, 0], [1, 2, 3, 4], [1, 2, 3, 0]])
    longer, place = model.append(items, torch.tensor([2, 4, 3]), torch.tensor([7, 8, 9]))
    assert longer.tolist() == [[1, 2, 7, 0], [2, 3, 4, 8], [1, 2, 3, 9]]
    assert place.tolist() == [2, 3, 3]


def test_every_row_masks_items_only_and_at_least_one():
    model, _ = build("NOVABERT", mask_ratio=0.3, ft_ratio=0.25)
    torch.manual_seed(0)
    n = 4000
    items = torch.tensor([[5, 6, 7, 8, 9, 10, 0, 0]]).expand(n, -1)
    masked = model.choose_masked(items, torch.full((n,), 5))
    assert not bool(masked[:, 6:].any())
    assert bool(masked.any(1).all())
    # The first position is masked where the row is not fine-tuned (and then something is drawn).
    assert float(masked[:, 0].float().mean()) == pytest.approx(0.75 * 0.3, abs=0.03)
    nothing = 0.7**6  # then the last alone
    only_last = masked[:, 5] & ~masked[:, :5].any(1)
    expected = 0.25 + 0.75 * (nothing + 0.7**5 * 0.3)
    assert float(only_last.float().mean()) == pytest.approx(expected, abs=0.03)


def test_training_rows_end_with_their_target():
    """RecBole's BERT4Rec never sees a user's last training item; here it is one to predict."""
    model, data = build("NOVABERT", ft_ratio=1.0)
    rows = data.train_data._dataset.inter_feat[torch.arange(8)]
    seen = []
    model.masked_loss = lambda items, masked: seen.append(items[masked])
    model.calculate_loss(rows)
    assert seen[0].tolist() == rows["item_id"].tolist()
    model.train_target = False
    model.calculate_loss(rows)
    last = rows["item_length"] - 1
    assert seen[1].tolist() == rows["item_id_list"][torch.arange(8), last].tolist()
    assert seen[1].tolist() != seen[0].tolist()
