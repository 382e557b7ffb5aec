"""Products at inference against torch's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from recbole_bbqrec.generator.inference import fused_linear as affine
from recbole_bbqrec.generator.inference.fused_linear import Affine, linear
from recbole_bbqrec.generator.network.attention import softmax


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("shape", [(200, 16), (4, 50, 16), (1, 1, 16)])
@pytest.mark.parametrize(
    "dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.05)]
)
def test_linear(
    dtype: torch.dtype,
    tolerance: float,
    shape: tuple[int, ...],
    relu: bool,
    fused: bool,
    monkeypatch: Any,
) -> None:
    if not fused:
        monkeypatch.setattr(affine, "_FEWEST_ROWS", {})
    torch.manual_seed(0)
    x, weight, bias = torch.randn(shape), torch.randn(24, 16), torch.randn(24)
    x, weight, bias = (value.to(dtype) for value in (x, weight, bias))
    wanted = F.linear(x.double(), weight.double(), bias.double())
    wanted = wanted.relu() if relu else wanted
    before = x.clone()
    got = linear(x, Affine(weight, bias), relu)
    assert got.dtype == dtype and torch.equal(x, before)
    torch.testing.assert_close(got.double(), wanted, atol=tolerance, rtol=tolerance)


def test_linear_of_a_view() -> None:
    """Rows with a stride, and a row that stands for several."""
    torch.manual_seed(1)
    weights = Affine(torch.randn(8, 16), torch.randn(8))
    for x in (torch.randn(140, 48)[:, 16:32], torch.randn(4, 1, 16).expand(4, 50, 16)):
        torch.testing.assert_close(linear(x, weights), F.linear(x, *weights))


@pytest.mark.parametrize("n", [1, 3, 15, 16, 17])
def test_softmax_of_few(n: int) -> None:
    torch.manual_seed(2)
    scores = torch.randn(2, 5, n, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(2, 5, n, dtype=torch.float64)
    wanted = torch.softmax(scores, -1)
    got = softmax(scores)
    torch.testing.assert_close(got, wanted)
    grads = [torch.autograd.grad((y * upstream).sum(), scores)[0] for y in (got, wanted)]
    torch.testing.assert_close(*grads)
