from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_bbqrec.generator.network import attention
from recbole_bbqrec.generator.network.attention import (
    SimilarityGate,
    attend,
    blocking_bias,
    similarity_attend,
    similarity_buckets,
)
from recbole_bbqrec.generator.settings import GeneratorSettings
from recbole_bbqrec.nn.dropout import Dropout, keep_mask

B, H, T, L, C = 2, 3, 4, 2, 5


def gate_of(buckets: int, width: int, n_heads: int, init: str) -> SimilarityGate:
    settings = GeneratorSettings(
        levels=L, codebook_size=4, n_signals=1, vector_dim=6, hidden_size=width, n_heads=n_heads,
        similarity_buckets=buckets, similarity_init=init,
        item_embedding=False, item_head=False, repeat_logit=False,
    )  # fmt: skip
    return SimilarityGate(settings)


def qkv() -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = (torch.randn(B, H, T * L, C, dtype=torch.float64, requires_grad=True) for _ in "qkv")
    return q, k, v


def bias_of(kind: str) -> Tensor | None:
    if kind == "none":
        return None
    if kind == "causal":
        item = torch.arange(T).repeat_interleave(L)
        return blocking_bias(item[None, :] <= item[:, None], torch.float64)
    lengths = torch.tensor([4, 2])
    seen = torch.arange(T).repeat_interleave(L) < lengths[:, None]
    return blocking_bias(seen[:, None, None], torch.float64)


def naive(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, table: Tensor, buckets: Tensor
) -> Tensor:
    """Eq. 17 as printed, with one gated value for every pair of tokens."""
    scores = torch.einsum("bhsc,bhtc->bhst", q, k) / C**0.5
    alpha = (scores if bias is None else scores + bias).softmax(-1)
    item = torch.arange(T).repeat_interleave(L)
    pair = buckets[:, item][:, :, item]  # [B, TL, TL], row: the query's item
    e_sim = table[pair].view(B, T * L, T * L, H, C)
    return torch.einsum("bsthc,bhst,bhtc->bhsc", e_sim, alpha, v)


@pytest.mark.parametrize("items_at_a_time", [1, 3, 7])
@pytest.mark.parametrize("kind", ["none", "causal", "padding"])
def test_similarity_attention_equals_the_naive_form(
    kind: str, items_at_a_time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "_GATED_ITEMS", items_at_a_time)
    torch.manual_seed(0)
    q, k, v = qkv()
    gate = gate_of(10, H * C, H, "identity").double()
    with torch.no_grad():
        gate.table.normal_()
    buckets = torch.randint(0, 11, (B, T, T))  # row: the query's item; symmetric only in use
    inputs = [q, k, v, gate.table]
    weight = torch.randn(B, H, T * L, C, dtype=torch.float64)
    got = similarity_attend(
        q, k, v, bias_of(kind), gate.by_head(), buckets, causal=kind == "causal"
    )
    wanted = naive(q, k, v, bias_of(kind), gate.table, buckets)
    torch.testing.assert_close(got, wanted)
    for a, b in zip(
        torch.autograd.grad((got * weight).sum(), inputs),
        torch.autograd.grad((wanted * weight).sum(), inputs),
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("kind", ["none", "causal", "padding"])
def test_gate_of_one_is_plain_attention(kind: str) -> None:
    torch.manual_seed(1)
    q, k, v = qkv()
    bias = bias_of(kind)
    table, buckets = torch.ones(H, 3, C, dtype=torch.float64), torch.randint(0, 3, (B, T, T))
    gated = similarity_attend(q, k, v, bias, table, buckets, causal=kind == "causal")
    torch.testing.assert_close(gated, attend(q, k, v, bias))
    torch.testing.assert_close(
        gated, F.scaled_dot_product_attention(q, k, v, None if bias is None else bias >= 0)
    )


@pytest.mark.parametrize("init, low, high", [("identity", 0.9, 1.1), ("uniform", 0.0, 0.01)])
def test_gate_table(init: str, low: float, high: float) -> None:
    torch.manual_seed(2)
    table = gate_of(100, 8, 2, init).table.detach()
    assert table.shape == (101, 8)
    assert low <= float(table.min()) < float(table.max()) <= high


@pytest.mark.parametrize("k, wanted", [(100, [0, 25, 50, 75, 100]), (10, [0, 2, 5, 8, 10])])
def test_buckets(k: int, wanted: list[int]) -> None:
    """cos = -1, -1/2, 0, 1/2, 1; at K = 10 the halves 2.5 and 7.5 go to the even neighbour."""
    angle = torch.tensor([180.0, 120.0, 90.0, 60.0, 0.0]).deg2rad()
    vectors = torch.stack([angle.cos(), angle.sin()], 1).double()
    vectors[[1, 3], 0] = torch.tensor([-0.5, 0.5]).double()
    vectors[2, 0] = 0
    buckets = similarity_buckets(torch.cat([vectors, vectors[4:]])[None], k)
    assert buckets.dtype == torch.int64
    assert buckets[0, 5, :5].tolist() == wanted
    assert torch.equal(buckets, buckets.transpose(1, 2))


def test_buckets_are_clamped_and_immune_to_autocast() -> None:
    torch.manual_seed(3)
    vectors = F.normalize(torch.randn(2, 6, 64), dim=-1)
    exact = similarity_buckets(vectors, 100)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(similarity_buckets(vectors, 100), exact)
    assert similarity_buckets(vectors * 1.1, 100).max() == 100


def test_a_row_that_sees_nothing_is_finite() -> None:
    q, k, v = qkv()
    bias = blocking_bias(torch.zeros(1, 1, T * L, T * L, dtype=torch.bool), torch.float64)
    assert attend(q, k, v, bias).isfinite().all()


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9, 0.999])
def test_dropout_rate_scale_and_gradient(p: float) -> None:
    torch.manual_seed(4)
    x = torch.ones(1000, 333, requires_grad=True)  # not a multiple of 8 in either direction
    dropout = Dropout(p)
    y = dropout(x)
    keep = 1 - min(round(p * 256), 255) / 256
    assert y.detach().unique().tolist() == pytest.approx([0.0, 1 / keep])
    n = x.numel()
    assert float((y > 0).double().mean()) == pytest.approx(
        keep, abs=5 * (keep * (1 - keep) / n) ** 0.5
    )
    (grad,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(grad, y.detach())


def test_every_byte_of_a_draw_is_uniform() -> None:
    """The sign bit included: each of the eight bytes of a 64-bit draw is dropped equally often."""
    torch.manual_seed(5)
    kept = keep_mask(torch.Size([100_000, 8]), 200).double().mean(0)
    torch.testing.assert_close(kept, torch.full((8,), 56 / 256).double(), atol=0.01, rtol=0)


def test_dropout_is_seeded_and_off_in_evaluation() -> None:
    x, dropout = torch.randn(100), Dropout(0.3)
    torch.manual_seed(6)
    first = dropout(x)
    assert not torch.equal(dropout(x), first)
    torch.manual_seed(6)
    assert torch.equal(dropout(x), first)
    assert dropout.eval()(x) is x
    assert Dropout(0.0)(x) is x
    assert Dropout(0.001)(x) is x  # rounds to 0 of 256


@pytest.mark.parametrize("p", [-0.1, 1.0])
def test_dropout_range(p: float) -> None:
    with pytest.raises(ValueError, match=str(p)):
        Dropout(p)
