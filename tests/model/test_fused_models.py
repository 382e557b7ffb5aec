"""Modality-fused and code-based baselines: training, files, history batches, options."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.model.base import length_groups
from recbole_bbqrec.model.base.length_groups import InLengthGroups
from recbole_bbqrec.nn import optim
from recbole_bbqrec.trainer.history_trainer import HistoryTrainer
from recbole_bbqrec.trainer.recbole_trainer import SafeCheckpoints
from recbole_bbqrec.trainer.registry import get_trainer_class
from tests.support.fused import (
    SMALL,
    build,
    history_batch,
    options,
    rows_of_test,
    train,
    unequal_histories,
)
from tests.support.resume import check_resumed_equals_uninterrupted

HISTORY_MODELS = ["MISSRec", "VQRec", "ESASRec", "ESASRecNeighbours", "VQRecNeighbours", "RPG"]
CAUSAL_MODELS = ["VQRec", "ESASRec", "RPG"]


# training on histories --------------------------------------------------------------------------


@pytest.mark.parametrize("name", CAUSAL_MODELS)
def test_one_pass_equals_one_row_per_prefix(name):
    model, data = build(name)
    batch = history_batch(data)
    row, place = (batch.targets > 0).nonzero(as_tuple=True)
    targets = batch.targets[row, place]
    at_once = model.target_loss(model.states(batch.items)[row, place], targets)
    one_by_one = []
    for b, t in zip(row.tolist(), place.tolist()):
        prefix = batch.items[b : b + 1, : t + 1]
        one_by_one.append(model.target_loss(model.states(prefix)[:, -1], batch.targets[b, t][None]))
    torch.testing.assert_close(at_once, torch.cat(one_by_one))
    torch.testing.assert_close(model.history_loss(batch), at_once.mean())
    rows = {
        model.ITEM_SEQ: torch.stack(
            [F.pad(batch.items[b, : t + 1], (0, 19 - t)) for b, t in zip(row.tolist(), place)]
        ),
        model.ITEM_SEQ_LEN: place + 1,
        model.POS_ITEM_ID: targets,
    }
    torch.testing.assert_close(model.calculate_loss(rows), at_once.mean())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ESASRec", "MISSRec", "VQRec", "RPG"])  # RPG: with a schedule
def test_resumed_equals_uninterrupted(name, rundir, monkeypatch):
    check_resumed_equals_uninterrupted(
        lambda **resume: train(name, epochs=3, **resume), monkeypatch
    )


def rates_of_a_run(monkeypatch, **overrides):
    """The learning rate of every step, and the steps of an epoch."""
    rates, epochs = [], []

    class Noting(torch.optim.AdamW):
        def step(self, *args, **kwargs):
            rates.append({group["lr"] for group in self.param_groups})
            return super().step(*args, **kwargs)

    original = HistoryTrainer._train_epoch
    monkeypatch.setattr(
        HistoryTrainer,
        "_train_epoch",
        lambda *a, **k: (epochs.append(len(rates)), original(*a, **k))[1],
    )
    monkeypatch.setitem(optim._LEARNERS, "adamw", Noting)
    train("VQRec", learning_rate=0.02, **overrides)
    assert all(len(rate) == 1 for rate in rates)  # every group of parameters has the same
    return [rate.pop() for rate in rates], epochs


def test_cosine_schedule_rises_then_falls_to_zero_over_all_epochs(monkeypatch, rundir):
    rates, starts = rates_of_a_run(
        monkeypatch, lr_schedule="cosine", warmup_ratio=0.25, epochs=4, eval_step=4
    )
    assert starts == [0, len(rates) // 4, len(rates) // 2, 3 * len(rates) // 4]
    rise = len(rates) // 4
    assert rates[:rise] == pytest.approx([0.02 * (step + 1) / rise for step in range(rise)])
    fall = len(rates) - rise
    expected = [0.01 * (1 + math.cos(math.pi * step / fall)) for step in range(fall)]
    assert rates[rise:] == pytest.approx(expected)


def test_without_a_schedule_the_rate_is_constant(monkeypatch, rundir):
    rates, _ = rates_of_a_run(monkeypatch, warmup_ratio=0.5)
    assert set(rates) == {0.02}


def test_history_trainer_is_chosen_and_decays_matrices_only():
    for name in SMALL:
        trainer = get_trainer_class(name)
        assert issubclass(trainer, HistoryTrainer) == (name in HISTORY_MODELS)
        assert issubclass(trainer, SafeCheckpoints)
    choices = {"weight_decay": 0.25, "learner": "adamw"}
    model, _ = build("ESASRec", **choices)
    config = BBQRecConfig("ESASRec", "Mini", overrides=options("ESASRec", **choices))
    optimizer = HistoryTrainer(config, model).optimizer
    assert isinstance(optimizer, torch.optim.AdamW)
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    found = {name: decay[id(p)] for name, p in model.named_parameters()}
    assert set(found.values()) == {0.0, 0.25}
    for name, value in found.items():
        matrix = name.endswith(".weight") and not any(
            word in name for word in ("norm", "position", "embedding")
        )
        assert value == (0.25 if matrix else 0.0), name


@pytest.mark.parametrize("name", HISTORY_MODELS)
def test_autocast_changes_the_precision_and_little_else(name):
    full, data = build(name)
    half, _ = build(name, precision="bfloat16")
    batch = history_batch(data)
    torch.manual_seed(0)
    expected = full.history_loss(batch)
    torch.manual_seed(0)
    found = half.history_loss(batch)
    found.backward()
    assert found.dtype == torch.float32 and found != expected
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)


@pytest.mark.slow
def test_recboles_debugging_aid_is_off():
    """RecBole's SINE switches it on when it is imported, for every model of the process."""
    script = "import torch, recbole_bbqrec.model.registry; assert not torch.is_anomaly_enabled()"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_loss_that_is_not_finite_stops_the_run(rundir):
    with pytest.raises(UserError, match="`learning_rate` is 1e.25: the training loss is nan"):
        train("ESASRec", learning_rate=1e25, epochs=3)


# sampled softmax --------------------------------------------------------------------------------


def test_sampled_softmax_over_every_item_is_the_full_softmax():
    model, _ = build("ESASRec", n_negatives=256, logq_correction=True)
    states, targets = torch.randn(5, 16), torch.tensor([1, 2, 3, 3, 9])
    every = torch.arange(1, model.n_items).expand(5, -1)  # the target among them is masked
    full = F.cross_entropy(model.item_logits(states), targets - 1, reduction="none")
    torch.testing.assert_close(model.sampled_loss(states, targets, every), full)


@pytest.mark.parametrize("logq", [False, True])
def test_sampled_softmax_against_float64(logq):
    model, _ = build("ESASRec", n_negatives=256, logq_correction=logq)
    states, targets = torch.randn(4, 16), torch.tensor([1, 2, 3, 4])
    negatives = torch.tensor([[5, 1, 5], [6, 7, 8], [3, 3, 9], [4, 4, 4]])
    table = model.item_embedding.weight.detach().double()
    expected = []
    for state, target, row in zip(states.double(), targets.tolist(), negatives.tolist()):
        shift = torch.log(torch.tensor((model.n_items - 1) / 3, dtype=torch.float64)) * logq
        others = [torch.exp(state @ table[i] + shift) for i in row if i != target]
        positive = torch.exp(state @ table[target])
        expected.append(-torch.log(positive / (positive + sum(others))))
    found = model.sampled_loss(states, targets, negatives)
    torch.testing.assert_close(found.double(), torch.stack(expected), rtol=1e-5, atol=1e-6)


def test_sampled_negatives_are_items_and_change_from_step_to_step():
    model, data = build("ESASRec", n_negatives=256)
    seen = []
    original = model.sampled_loss

    def spy(states, targets, negatives):
        seen.append(negatives)
        return original(states, targets, negatives)

    model.sampled_loss = spy
    batch = history_batch(data)
    model.history_loss(batch)
    model.history_loss(batch)
    assert seen[0].shape == (int((batch.targets > 0).sum()), 256)
    assert int(seen[0].min()) >= 1 and int(seen[0].max()) == model.n_items - 1
    assert not torch.equal(seen[0], seen[1])


# features in the input --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["MMGRU4Rec", "MMSASRec"])
def test_features_act_through_the_history_alone(name):
    model, data = build(name)
    rows = rows_of_test(data, 1)
    inside = int(rows[model.ITEM_SEQ][0, 0])
    outside = next(
        i for i in range(1, model.n_items) if i not in rows[model.ITEM_SEQ].flatten().tolist()
    )
    scores = model.full_sort_predict(rows)
    features = model.item_embedding.features
    for number in range(2):
        features.present[outside, number] = True
        features.matrix(number)[outside] += 3
        torch.testing.assert_close(model.full_sort_predict(rows), scores)
        features.present[inside, number] = True
        features.matrix(number)[inside] += 3
        changed = model.full_sort_predict(rows)
        assert not torch.allclose(changed, scores)
        scores = changed


@pytest.mark.parametrize("name", ["MMGRU4Rec", "MMSASRec"])
def test_output_is_the_plain_item_table(name):
    model, data = build(name)
    rows = rows_of_test(data, 4)
    state = model.forward(rows[model.ITEM_SEQ], rows[model.ITEM_SEQ_LEN])
    table = dict(model.named_parameters())["item_embedding.weight"]
    torch.testing.assert_close(model.full_sort_predict(rows), state @ table.T)


@pytest.mark.parametrize("name", ["MMGRU4Rec", "MMSASRec"])
def test_states_and_gradients_are_recboles_whoever_shares_the_pass(name, monkeypatch):
    model, data = build(name)
    items, lengths = unequal_histories(model, data)
    whole = super(InLengthGroups, model).forward(items, lengths)
    weight = model.item_embedding.mix.weight
    for size in (5, 256):
        monkeypatch.setattr(length_groups, "_ROWS", size)
        found = model.forward(items, lengths)
        torch.testing.assert_close(found, whole)
        torch.testing.assert_close(
            torch.autograd.grad(found.pow(2).sum(), weight),
            torch.autograd.grad(whole.pow(2).sum(), weight, retain_graph=True),
        )


def test_missing_modality_is_zero_whatever_the_bias():
    model, _ = build("MMSASRec")
    features = model.item_embedding.features
    for projection in features.projections:
        torch.nn.init.constant_(projection.bias, 5.0)
    missing = (~features.present).nonzero()
    assert len(missing) > 2  # [PAD] twice, and Mini has items without text or image
    every = features.catalogue()
    assert bool((every[missing[:, 0], missing[:, 1]] == 0).all())
    assert bool((every[features.present] != 0).any(-1).all())
    items = torch.randint(0, model.n_items, (3, 7))
    torch.testing.assert_close(features(items), every[items])


def test_projections_start_at_the_scale_of_the_item_embedding():
    model, _ = build("MMSASRec", feature_size=64)
    features = model.item_embedding.features
    for number in range(2):
        values = features.catalogue()[features.present[:, number], number]
        assert float(values.detach().std()) == pytest.approx(0.02, rel=0.3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["VQRec", "RPG", "ESASRec"])
def test_images_change_nothing_in_a_model_without_them(name, rundir):
    both = train(name, modalities=["text", "image"], epochs=1)
    one = train(name, modalities=["text"], epochs=1)
    assert one["test_result"] == both["test_result"]


@pytest.mark.slow
def test_images_do_change_a_model_with_them(rundir):
    both = train("MISSRec", modalities=["text", "image"], epochs=1)
    one = train("MISSRec", modalities=["text"], epochs=1)
    assert one["test_result"] != both["test_result"]


# options ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "overrides", "says"),
    [
        *[(n, {"modalities": []}, "at least one modality") for n in list(SMALL)[:4]],
        ("VQRec", {"modalities": ["image"]}, "VQRec needs 'text'"),
        ("RPG", {"modalities": []}, "RPG needs 'text'"),
        ("RPG", {"code_components": 3}, "at least `code_digits`, which is 4"),
        ("RPG", {"lr_schedule": "linear"}, "one of constant, cosine"),
        ("MMSASRec", {"n_heads": 3}, "multiple of `n_heads`"),
        ("ESASRec", {"n_heads": 3}, "multiple of `n_heads`"),
        ("MMGRU4Rec", {"loss_type": "BPR"}, "`loss_type` is 'BPR'; expected one of CE"),
        ("NOVABERT", {"nova_fusion": "sum"}, "one of add, concat, gate"),
        ("MISSRec", {"interest_ratio": 0}, "above 0 and at most 1"),
        ("ESASRec", {"n_negatives": -1}, "at least 0"),
        ("ESASRec", {"benchmark_filename": ["a", "b", "c"]}, "give one .inter file"),
        ("ESASRec", {"train_neg_sample_args": {"sample_num": 1}}, "takes no sampled rows"),
    ],
)
def test_bad_options_are_refused_before_any_file_is_read(name, overrides, says):
    with pytest.raises(UserError, match=says):
        BBQRecConfig(name, "nowhere", overrides=options(name, **overrides))


def test_history_trainer_knows_two_learners(rundir):
    with pytest.raises(UserError, match="`learner` is 'sgd'"):
        train("ESASRec", learner="sgd")
