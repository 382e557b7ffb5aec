"""Residual quantizer: nearest codes, gradients, initialisation, dead codes."""

from __future__ import annotations

import pytest
import torch

from recbole_bbqrec.nn.kmeans import kmeans
from recbole_bbqrec.tokenizer.quantizer import ResidualQuantizer, nearest_codes, perplexity

LEVELS, CODES, DIM, SIGNALS = 3, 8, 5, 2


def make(shared: bool = True, **changes: int) -> ResidualQuantizer:
    torch.manual_seed(0)
    sizes = {"levels": LEVELS, "codebook_size": CODES, "dim": DIM, "n_signals": SIGNALS, **changes}
    sets = 1 if shared else sizes["n_signals"]
    return ResidualQuantizer(**sizes, n_codebook_sets=sets).double()


def draw(rows: int = 40, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, SIGNALS, DIM, generator=generator, dtype=torch.float64)


def everywhere(z: torch.Tensor) -> torch.Tensor:
    """Every row has every signal."""
    return torch.ones(z.shape[:2], dtype=torch.bool)


def brute_force(quantizer: ResidualQuantizer, z: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Codes, sums and squared errors per level by explicit loops."""
    codes = torch.zeros(len(z), quantizer.levels, SIGNALS, dtype=torch.int64)
    total, errors = torch.zeros_like(z), torch.zeros(len(z), quantizer.levels, SIGNALS).double()
    for row in range(len(z)):
        for signal in range(SIGNALS):
            books = quantizer.codebooks[signal % quantizer.n_sets]
            residual = z[row, signal].clone()
            for level in range(quantizer.levels):
                squared = [float(((residual - code) ** 2).sum()) for code in books[level]]
                best = squared.index(min(squared))
                codes[row, level, signal], errors[row, level, signal] = best, squared[best]
                total[row, signal] += books[level, best]
                residual = residual - books[level, best]
    return codes, total, errors


@pytest.mark.parametrize("shared", [True, False])
def test_equals_brute_force(shared: bool) -> None:
    quantizer, z = make(shared), draw()
    with torch.no_grad():
        codes, total, errors = brute_force(quantizer, z)
    output = quantizer(z)
    assert torch.equal(output.codes, codes)
    torch.testing.assert_close(output.quantized, total)
    torch.testing.assert_close(output.codebook_loss, errors.sum(1).mean(0))
    torch.testing.assert_close(output.commitment_loss, errors.sum(1).mean(0))
    last = (z - output.quantized) + torch.stack(
        [quantizer.codebooks[m % quantizer.n_sets, -1, codes[:, -1, m]] for m in range(SIGNALS)], 1
    )
    torch.testing.assert_close(output.last_residual, last.detach())


def test_search_in_blocks_equals_search_at_once() -> None:
    points, codebook = torch.randn(2, 50, 4), torch.randn(2, 9, 4)
    expected = torch.cdist(points, codebook).argmin(-1)
    for block in (7, 50, 1000):
        assert torch.equal(nearest_codes(points, codebook, block), expected)


def test_straight_through_value_and_gradient() -> None:
    quantizer, z = make(), draw().requires_grad_()
    output = quantizer(z)
    weight = torch.randn_like(z)
    torch.testing.assert_close(output.quantized_ste, output.quantized)
    gradients = torch.autograd.grad(
        (output.quantized_ste * weight).sum(), [z, quantizer.codebooks], allow_unused=True
    )
    torch.testing.assert_close(gradients[0], weight)  # as if quantization were the identity
    assert gradients[1] is None  # the codebook learns from its own loss alone


@pytest.mark.parametrize("shared", [True, False])
def test_commitment_of_every_level_reaches_the_encoder(shared: bool) -> None:
    """The gradient is 2 sum_l (r_l - c_l); a straight-through residual would lose l > 1."""
    quantizer, z = make(shared), draw().requires_grad_()
    (gradient,) = torch.autograd.grad(quantizer(z).commitment_loss.sum(), z)
    expected = torch.zeros_like(z)
    with torch.no_grad():
        codes = quantizer(z).codes
        residual = z.detach().clone()
        for level in range(LEVELS):
            code = quantizer._look_up(codes[:, level], level)
            expected += 2 * (residual - code) / len(z)
            residual = residual - code
    torch.testing.assert_close(gradient, expected)
    deepest = 2 * residual / len(z)
    assert deepest.abs().max() > 0.01  # the last level's share is not negligible


def test_codebook_loss_moves_codes_and_not_the_encoder() -> None:
    quantizer, z = make(), draw().requires_grad_()
    output = quantizer(z)
    gradients = torch.autograd.grad(
        output.codebook_loss.sum(), [z, quantizer.codebooks], allow_unused=True
    )
    assert gradients[0] is None
    used = torch.zeros(LEVELS, CODES, dtype=torch.bool)
    for level in range(LEVELS):
        used[level, output.codes[:, level].flatten()] = True
    assert torch.equal(gradients[1][0].abs().sum(-1) > 0, used)


def test_weights_exclude_rows() -> None:
    quantizer, z = make(), draw()
    keep = torch.rand(len(z), SIGNALS, generator=torch.Generator().manual_seed(2)) > 0.4
    output = quantizer(z, keep)
    for signal in range(SIGNALS):
        alone = quantizer(z[keep[:, signal]])
        torch.testing.assert_close(output.codebook_loss[signal], alone.codebook_loss[signal])
        torch.testing.assert_close(output.commitment_loss[signal], alone.commitment_loss[signal])
    assert torch.equal(quantizer(z, torch.zeros_like(keep)).codebook_loss, torch.zeros(2).double())


def test_autocast_does_not_change_the_codes() -> None:
    quantizer = make().float()
    z = draw(500).float()
    with torch.autocast("cpu", torch.bfloat16):
        inside = quantizer(z)
    assert torch.equal(inside.codes, quantizer(z).codes)
    assert inside.quantized.dtype == torch.float32


def test_initialisation_reduces_the_error_level_by_level() -> None:
    z = draw(300)
    errors = []
    for levels in (1, 2, 3):
        quantizer = make(levels=levels)
        quantizer.initialise(z, seed=3)
        errors.append(float((z - quantizer(z).quantized).pow(2).mean()))
    assert float(z.pow(2).mean()) > errors[0] > errors[1] > errors[2]
    # Level one is k-means: each code is the mean of the points that chose it.
    chosen = quantizer(z).codes[:, 0].flatten()
    means = torch.stack([z.reshape(-1, DIM)[chosen == code].mean(0) for code in range(CODES)])
    torch.testing.assert_close(quantizer.codebooks[0, 0], means, atol=0.05, rtol=0)


def test_separate_codebooks_are_fitted_to_their_own_signal() -> None:
    z = draw(200)
    z[:, 1] += 100
    quantizer = make(shared=False)
    quantizer.initialise(z, seed=0)
    means = quantizer.codebooks[:, 0].detach().mean(dim=(1, 2))
    assert abs(float(means[0])) < 5 and abs(float(means[1]) - 100) < 5


def test_initialisation_is_seeded_and_survives_a_reload() -> None:
    z = draw(200)
    first, second, other = make(), make(), make()
    for quantizer, seed in ((first, 4), (second, 4), (other, 5)):
        assert not bool(quantizer.initialised)
        quantizer.initialise(z, seed)
    assert torch.equal(first.codebooks, second.codebooks)
    assert not torch.equal(first.codebooks, other.codebooks)
    reloaded = make()
    reloaded.load_state_dict(first.state_dict())
    assert bool(reloaded.initialised)
    assert torch.equal(reloaded(z).codes, first(z).codes)


@pytest.mark.parametrize("distinct", [1, 3, CODES])
def test_kmeans_with_few_distinct_points(distinct: int) -> None:
    base = torch.randn(distinct, DIM)
    centres = kmeans(base.repeat(20, 1), CODES, seed=0)
    assert centres.shape == (CODES, DIM) and centres.isfinite().all()
    assert len(torch.unique(centres, dim=0)) == CODES
    assert float(torch.cdist(base, centres).min(-1).values.max()) < 1e-5  # all represented exactly


def test_kmeans_refuses_what_it_cannot_cluster() -> None:
    with pytest.raises(ValueError, match="finite"):
        kmeans(torch.tensor([[float("nan")]]), 2, seed=0)
    with pytest.raises(ValueError, match="n >= 1"):
        kmeans(torch.zeros(0, 3), 2, seed=0)


def test_usage_is_counted_in_training_only() -> None:
    quantizer, z = make(), draw()
    quantizer.eval()
    quantizer(z)
    assert int(quantizer.usage.sum()) == 0
    quantizer.train()
    codes = torch.cat([quantizer(z).codes, quantizer(draw(seed=9)).codes])
    for level in range(LEVELS):
        for signal in range(SIGNALS):
            expected = torch.bincount(codes[:, level, signal], minlength=CODES)
            assert torch.equal(quantizer.usage[level, signal], expected)
    share = quantizer.usage[1, 0].double() / quantizer.usage[1, 0].sum()
    entropy = -sum(float(p) * float(p.log()) for p in share if p > 0)
    assert float(quantizer.perplexity()[1, 0]) == pytest.approx(2.718281828**entropy, rel=1e-5)
    assert float(quantizer.utilisation()[1, 0]) == float((share > 0).sum()) / CODES
    quantizer.reset_usage()
    assert float(quantizer.perplexity().sum()) == 0


@pytest.mark.parametrize("dtype", [torch.int64, torch.float64])
def test_perplexity(dtype: torch.dtype) -> None:
    counts = torch.tensor([[3, 3, 3, 3], [0, 5, 0, 0], [1, 3, 0, 0], [0, 0, 0, 0]], dtype=dtype)
    assert perplexity(counts).tolist() == pytest.approx([4, 1, 4 / 3**0.75, 0])


@pytest.mark.parametrize("shared", [True, False])
def test_dead_codes_restart_and_live_ones_stay(shared: bool) -> None:
    quantizer, z = make(shared), draw(200)
    quantizer.initialise(z, seed=0)
    with torch.no_grad():
        quantizer.codebooks[:, 0, :3] = 1e3  # far from everything: never chosen
        quantizer.codebooks[:, 2, 5] = -1e3
    quantizer(z)
    dead, before = quantizer.dead_codes(), quantizer.codebooks.detach().clone()
    assert dead[:, 0, :3].all() and dead[:, 2, 5].all()
    error_before = float((z - quantizer(z).quantized).pow(2).mean())
    restarted = quantizer.restart_dead_codes(z, everywhere(z), torch.Generator().manual_seed(0))
    assert restarted == dead.sum(dim=(0, 2)).tolist()
    assert torch.equal(quantizer.codebooks[~dead], before[~dead])
    # A first-level restart copies a representation itself, of the set's own signal.
    for index in range(quantizer.n_sets):
        own = z.reshape(-1, DIM) if shared else z[:, index]
        for code in quantizer.codebooks.detach()[index, 0, :3]:
            assert float((own - code).abs().sum(-1).min()) == 0
    quantizer.reset_usage()
    quantizer(z)
    assert not quantizer.dead_codes()[:, 0, :3].any()
    assert float((z - quantizer(z).quantized).pow(2).mean()) < error_before


def test_shared_dead_codes_come_from_the_signal_with_most_error() -> None:
    quantizer, z = make(), draw(100)
    z[:, 1] *= 20
    quantizer(z * 1e-6)
    with torch.no_grad():
        quantizer.usage[0] = 0
    quantizer.restart_dead_codes(z, everywhere(z), torch.Generator().manual_seed(0))
    for code in quantizer.codebooks.detach()[0, 0]:
        assert float((z[:, 1] - code).abs().sum(-1).min()) == 0


@pytest.mark.parametrize("shared", [True, False])
def test_restarted_codes_come_from_rows_that_have_the_signal(shared: bool) -> None:
    """The rows without it are all alike: codes made of them would be one code."""
    quantizer, z = make(shared), draw(100)
    present = everywhere(z)
    present[10:, 1] = False
    z[10:, 1] = 500.0  # badly quantized, and nobody's
    z[:, 0] *= 20
    quantizer(z * 1e-6)
    with torch.no_grad():
        quantizer.usage[0] = 0
    quantizer.restart_dead_codes(z, present, torch.Generator().manual_seed(0))
    for index in range(quantizer.n_sets):
        source = z[:, 0] if shared else z[present[:, index], index]
        for code in quantizer.codebooks.detach()[index, 0]:
            assert float((source - code).abs().sum(-1).min()) == 0


def test_a_signal_that_nobody_has_restarts_its_codes_all_the_same() -> None:
    quantizer, z = make(shared=False), draw(50)
    present = everywhere(z)
    present[:, 1] = False
    quantizer.restart_dead_codes(z, present, torch.Generator().manual_seed(0))
    assert bool(quantizer.codebooks.isfinite().all())
    for code in quantizer.codebooks.detach()[1, 0]:
        assert float((z[:, 1] - code).abs().sum(-1).min()) == 0


def test_restart_is_reproducible() -> None:
    results = []
    for _ in range(2):
        quantizer = make()
        z = draw()
        quantizer.restart_dead_codes(z, everywhere(z), torch.Generator().manual_seed(7))
        results.append(quantizer.codebooks.detach().clone())
    assert torch.equal(*results)


def test_number_of_codebook_sets_is_checked() -> None:
    with pytest.raises(ValueError, match="n_codebook_sets"):
        ResidualQuantizer(2, 4, 3, n_signals=3, n_codebook_sets=2)
