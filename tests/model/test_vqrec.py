"""Optimized product quantization, and VQ-Rec's item vectors made of its codes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from recbole_bbqrec.model.base import history_model as history
from recbole_bbqrec.model.parts import item_codes
from recbole_bbqrec.quick_start import load_data_and_model
from recbole_bbqrec.tokenizer import opq
from recbole_bbqrec.tokenizer.opq import fit_opq, whiten
from tests.support.fused import build, rows_of_test, train, unequal_histories


def correlated(n: int, dim: int, seed: int) -> torch.Tensor:
    """Vectors whose variance lies in few directions, none along an axis."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    scale = 3.0 * 0.7 ** np.arange(dim)
    return torch.from_numpy((rng.standard_normal((n, dim)) * scale) @ basis).float() + 1.5


@pytest.mark.parametrize(("dim", "digits"), [(16, 4), (15, 4), (12, 1), (7, 7)])
@pytest.mark.parametrize("cells", [1 << 24, 100])
def test_codes_are_the_nearest_ones(dim, digits, cells, monkeypatch):
    monkeypatch.setattr(opq, "_BLOCK_CELLS", cells)
    vectors = correlated(300, dim, seed=1)
    quantizer = fit_opq(vectors, digits, 8, iterations=4, seed=3)
    unseen = correlated(60, dim, seed=2)
    codes = quantizer.encode(unseen)
    assert codes.shape == (60, digits)
    width = quantizer.rotation.shape[0]
    assert width % digits == 0 and dim <= width < dim + digits
    padded = F.pad(unseen.double(), (0, width - dim))
    for vector, code in zip(padded @ quantizer.rotation.double(), codes.tolist()):
        for digit, piece in enumerate(vector.chunk(digits)):
            distances = (quantizer.codebooks[digit].double() - piece).pow(2).sum(1)
            assert float(distances[code[digit]]) == pytest.approx(float(distances.min()), abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("digits", [2, 4, 5])
def test_rotation_never_raises_the_error_and_helps(seed, digits):
    vectors = correlated(400, 16, seed)
    quantizer = fit_opq(vectors, digits, 16, iterations=8, seed=seed)
    errors = np.array(quantizer.errors)
    assert len(errors) == 9
    assert (np.diff(errors) <= 1e-5 * errors[0]).all()
    assert errors[-1] < 0.95 * errors[0]
    plain = fit_opq(vectors, digits, 16, iterations=0, seed=seed)
    assert plain.errors == pytest.approx(errors[:1])
    for fitted in (plain, quantizer):  # the error is that of decode(encode(x))
        rebuilt = fitted.decode(fitted.encode(vectors))
        found = (vectors - rebuilt).double().pow(2).sum(1).mean()
        assert rebuilt.shape == vectors.shape
        tolerance = 1e-4 if digits != 5 else 0.5  # padding dimensions carry error as well
        assert float(found) <= fitted.errors[-1] * (1 + tolerance)
        assert float(found) >= fitted.errors[-1] * (1 - tolerance)


def test_rotation_is_orthogonal_and_the_plain_form_has_none():
    vectors = correlated(200, 10, 0)
    rotation = fit_opq(vectors, 3, 8, iterations=5).rotation.double()
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(12).double(), atol=1e-5, rtol=0)
    assert torch.equal(fit_opq(vectors, 3, 8, iterations=0).rotation, torch.eye(12))


def test_same_seed_same_codes():
    vectors = correlated(200, 8, 0)
    one, two = (fit_opq(vectors, 2, 8, iterations=3, seed=5).encode(vectors) for _ in range(2))
    assert torch.equal(one, two)


def test_fewer_vectors_than_codes():
    vectors = correlated(5, 8, 0)
    quantizer = fit_opq(vectors, 2, 16, iterations=3)
    torch.testing.assert_close(quantizer.decode(quantizer.encode(vectors)), vectors)


@pytest.mark.parametrize(
    ("vectors", "digits", "size", "iterations"),
    [
        (torch.zeros(0, 4), 2, 4, 1),
        (torch.full((3, 4), float("nan")), 2, 4, 1),
        (torch.zeros(3, 4), 5, 4, 1),
        (torch.zeros(3, 4), 0, 4, 1),
        (torch.zeros(3, 4), 2, 0, 1),
        (torch.zeros(3, 4), 2, 4, -1),
    ],
)
def test_numbers_out_of_range(vectors, digits, size, iterations):
    with pytest.raises(ValueError, match="OPQ needs"):
        fit_opq(vectors, digits, size, iterations=iterations)


def test_whitened_components_against_an_eigendecomposition():
    vectors, present = correlated(80, 6, 0), torch.ones(80, dtype=torch.bool)
    present[[0, 7]] = False
    vectors[[0, 7]] = 100.0  # must not be looked at when the components are found
    found = whiten(vectors, present, 4)
    assert found.shape == (80, 4) and found.dtype == torch.float32
    known = vectors[present].double()
    values, axes = torch.linalg.eigh(torch.cov(known.T))
    axes, values = axes.flip(1)[:, :4], values.flip(0)[:4]
    expected = (vectors.double() - known.mean(0)) @ axes / values.sqrt()
    signs = torch.sign((expected * found).sum(0))
    torch.testing.assert_close(found.double(), expected * signs, rtol=1e-4, atol=1e-4)
    assert whiten(vectors, present, 99).shape == (80, 6)


def test_rpg_codes_the_whitened_text(monkeypatch):
    model, data = build("RPG", code_components=8)
    seen = []
    monkeypatch.setattr(
        item_codes, "fit_opq", lambda v, *a, **k: (seen.append(v), fit_opq(v, *a, **k))[1]
    )
    model.item_codes.make()
    text = data.dataset.item_features("text")
    assert torch.equal(seen[0], whiten(text.matrix.float(), text.present, 8)[text.present])
    torch.testing.assert_close(torch.cov(seen[0].T), torch.eye(8), rtol=0, atol=1e-4)


# VQ-Rec -----------------------------------------------------------------------------------------


def test_item_vectors_are_means_of_code_embeddings():
    model, _ = build("VQRec")
    codes = model.item_codes
    items = torch.tensor([[5, 6, 5], [9, 1, 0]])
    found = codes(items)
    table = codes.table()
    for item, vector in zip(items.flatten().tolist(), found.view(6, -1)):
        digits = enumerate(codes.codes[item].tolist())
        expected = torch.stack([table[d, c] for d, c in digits]).mean(0)
        torch.testing.assert_close(vector, expected)
    torch.testing.assert_close(codes.item_vectors()[items], found)


def test_gradient_of_the_item_vectors_is_that_of_torch():
    model, _ = build("VQRec")
    codes = model.item_codes
    torch.manual_seed(3)
    upstream = torch.randn(model.n_items, codes.code_embedding.shape[1])
    for loaded in (False, True):  # then with codes of a checkpoint, some of them on no item
        if loaded:
            other = torch.randint(0, 5, codes.codes.shape)
            codes.load_state_dict({**codes.state_dict(), "codes": other})
        loss = (codes.item_vectors() * upstream).sum()
        (found,) = torch.autograd.grad(loss, codes.code_embedding)
        table = codes.code_embedding.detach().double().requires_grad_()
        means = F.embedding_bag(codes.rows(), table, mode="mean")
        (expected,) = torch.autograd.grad((means * upstream.double()).sum(), table)
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
        unused = torch.bincount(codes.rows().flatten(), minlength=len(table)) == 0
        assert bool(unused.any()) == loaded and bool((found[unused] == 0).all())


def test_codes_are_those_of_the_text_and_of_the_average_without():
    model, data = build("VQRec")
    text = data.dataset.item_features("text")
    model.item_codes.make()
    quantizer = fit_opq(text.matrix.float()[text.present], 4, 16, iterations=3, seed=7)
    assert torch.equal(
        model.item_codes.codes[text.present], quantizer.encode(text.matrix.float()[text.present])
    )
    missing = (~text.present[1:]).nonzero().flatten() + 1
    assert len(missing) > 0
    average = text.matrix.float()[text.present].mean(0, keepdim=True)
    assert torch.equal(
        model.item_codes.codes[missing], quantizer.encode(average).expand(len(missing), -1)
    )


def test_scores_are_cosines_over_the_temperature():
    model, data = build("VQRec")
    rows = rows_of_test(data, 3)
    scores = model.full_sort_predict(rows)
    lengths = rows[model.ITEM_SEQ_LEN]
    states = model.states(rows[model.ITEM_SEQ])[torch.arange(3), lengths - 1]
    vectors = model.item_codes.item_vectors()
    for item in (1, 50, model.n_items - 1):
        expected = F.cosine_similarity(states, vectors[item].expand(3, -1)) / 0.07
        torch.testing.assert_close(scores[:, item], expected)
    assert bool((scores[:, 0] == -torch.inf).all())


@pytest.mark.parametrize("name", ["VQRec", "MISSRec"])
def test_states_of_histories_do_not_depend_on_who_shares_the_pass(name, monkeypatch):
    model, data = build(name)
    items, lengths = unequal_histories(model, data)
    monkeypatch.setattr(history, "_USERS", 5)
    found = model.last_states(items, lengths)
    expected = model.states(items)[torch.arange(12), lengths - 1]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ["VQRec", "RPG", "ESASRec", "MISSRec"])
def test_items_are_ranked_in_float32_after_states_in_bfloat16(name):
    model, data = build(name, precision="bfloat16")
    scores = model.full_sort_predict(rows_of_test(data, 8))[:, 1:]
    assert scores.dtype == torch.float32
    assert float((scores == scores.bfloat16().float()).float().mean()) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["VQRec", "RPG"])
def test_a_loaded_model_does_not_quantize_again(name, rundir, monkeypatch):
    calls = []
    original = fit_opq

    def counted(*args, **kwargs):
        calls.append(1)
        return original(*args, **kwargs)

    monkeypatch.setattr(item_codes, "fit_opq", counted)
    result = train(name, epochs=1)
    assert len(calls) == 1
    _, model, *_, test_data = load_data_and_model(result["files"]["model"])
    assert bool(model.item_codes.made)
    model.eval().full_sort_predict(test_data._dataset.inter_feat[torch.arange(4)])
    assert len(calls) == 1
