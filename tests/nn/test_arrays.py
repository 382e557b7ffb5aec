"""Layers in NumPy against those of torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from recbole_bbqrec.generator.inference.fused_linear import Affine
from recbole_bbqrec.nn.arrays import arrays, expand, fed_forward, group_logsumexp, largest, softmax


def test_layers_equal_those_of_torch() -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 8, dtype=torch.float64)
    norm, first, second = (
        Affine(torch.randn(*shape, dtype=x.dtype), torch.randn(shape[0], dtype=x.dtype))
        for shape in ((8,), (12, 8), (8, 12))
    )
    hidden = F.linear(F.layer_norm(x, (8,), *norm), *first).relu()
    wanted = x + F.linear(hidden, *second)
    got = fed_forward(x.numpy(), *arrays((norm, first, second)))
    np.testing.assert_allclose(got, wanted.numpy(), atol=1e-12)
    np.testing.assert_allclose(softmax(x.numpy(), 0), x.softmax(0).numpy(), atol=1e-12)


def test_groups() -> None:
    first, counts = np.array([4, 0, 7]), np.array([2, 1, 3])
    owner, member = expand(first, counts)
    assert owner.tolist() == [0, 0, 1, 2, 2, 2] and member.tolist() == [4, 5, 0, 7, 8, 9]
    values = np.array([1.0, 2.0, 3.0, -2000.0, 0.0, 2000.0])
    total = group_logsumexp(values, np.array([0, 2, 3]), counts)
    np.testing.assert_allclose(total, [np.logaddexp(1, 2), 3.0, 2000.0])


@pytest.mark.parametrize("n", [1, 20, 64 * 20, 64 * 20 + 5, 6859])
def test_largest(n: int) -> None:
    values = np.random.default_rng(n).integers(0, 50, n).astype(np.float32)  # many are equal
    values[::7] = -np.inf
    for k in (1, min(n, 20), n):
        chosen = largest(values, k)
        assert len(set(chosen.tolist())) == k
        assert sorted(values[chosen]) == sorted(values)[-k:]


def test_largest_of_nans() -> None:
    assert len(largest(np.full(64 * 20, np.nan), 5)) == 5
