"""The CLUB bound and InfoNCE, against loops over pairs."""

from __future__ import annotations

import pytest
import torch

from recbole_bbqrec.tokenizer.losses import ClubEstimator, info_nce


def pairwise(estimator: ClubEstimator, z: torch.Tensor, zbar: torch.Tensor) -> torch.Tensor:
    """Eq. 3 as printed: log-densities of all B x B pairs (the normaliser cancels)."""
    mean, log_variance = estimator(z)
    error = zbar.unsqueeze(0) - mean.unsqueeze(1)  # [i, j, D]
    density = -0.5 * (error.pow(2) * torch.exp(-log_variance).unsqueeze(1))
    density = density - 0.5 * log_variance.unsqueeze(1)
    density = density.mean(-1) if estimator.reduction == "mean" else density.sum(-1)  # [i, j]
    return (density.diagonal() - density.mean(1)).mean()


def pair(rows: int, dim: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    z, zbar = torch.randn(2, rows, dim, generator=generator, dtype=torch.float64)
    return z, zbar


def fit(estimator: ClubEstimator, z: torch.Tensor, zbar: torch.Tensor, steps: int = 300) -> None:
    optimizer = torch.optim.Adam(estimator.parameters(), lr=5e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        estimator.negative_log_likelihood(z, zbar).backward()
        optimizer.step()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("rows", [1, 2, 33])
def test_closed_form_equals_pairwise(reduction: str, rows: int) -> None:
    torch.manual_seed(0)
    estimator = ClubEstimator(4, 4, 8, reduction).double()
    z, zbar = (part.requires_grad_() for part in pair(rows, 4))
    closed, reference = estimator.upper_bound(z, zbar), pairwise(estimator, z, zbar)
    torch.testing.assert_close(closed, reference, atol=1e-12, rtol=1e-10)
    for ours, theirs in zip(
        torch.autograd.grad(closed, [z, zbar]), torch.autograd.grad(reference, [z, zbar])
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-9)


def test_mask_equals_leaving_rows_out() -> None:
    torch.manual_seed(0)
    estimator = ClubEstimator(4, 4, 8).double()
    z, zbar = pair(20, 4)
    mask = torch.arange(20) % 3 > 0
    spoiled, spoiled_bar = z.clone(), zbar.clone()
    spoiled[~mask], spoiled_bar[~mask] = 1e3, -1e3
    for method in (estimator.upper_bound, estimator.negative_log_likelihood):
        torch.testing.assert_close(method(spoiled, spoiled_bar, mask), method(z[mask], zbar[mask]))
        assert float(method(z, zbar, torch.zeros(20, dtype=torch.bool)).detach()) == 0


def test_likelihood_is_the_gaussian_density_up_to_its_constant() -> None:
    torch.manual_seed(0)
    estimator = ClubEstimator(3, 3, 8, "sum").double()
    z, zbar = pair(10, 3)
    mean, log_variance = estimator(z)
    density = torch.distributions.Normal(mean, torch.exp(0.5 * log_variance)).log_prob(zbar)
    constant = 0.5 * 3 * torch.log(torch.tensor(2 * torch.pi, dtype=torch.float64))
    expected = -density.sum(-1).mean() - constant
    torch.testing.assert_close(estimator.negative_log_likelihood(z, zbar), expected)


@pytest.mark.slow
def test_near_zero_for_independent_and_positive_for_dependent_data() -> None:
    torch.manual_seed(0)
    bounds = {}
    for name in ("independent", "dependent"):
        estimator = ClubEstimator(4, 4, 32, "sum").double()
        z, noise = pair(2000, 4)
        zbar = noise if name == "independent" else 0.8 * z + 0.6 * noise
        fit(estimator, z, zbar)
        fresh, fresh_noise = pair(2000, 4, seed=1)
        fresh_bar = fresh_noise if name == "independent" else 0.8 * fresh + 0.6 * fresh_noise
        bounds[name] = float(estimator.upper_bound(fresh, fresh_bar).detach())
    information = -0.5 * 4 * torch.log(torch.tensor(1 - 0.8**2)).item()  # 2.04 nats
    assert abs(bounds["independent"]) < 0.1
    assert bounds["dependent"] > 0.9 * information  # an upper bound, up to q's misfit


def test_minimising_the_bound_does_not_touch_q() -> None:
    torch.manual_seed(0)
    estimator = ClubEstimator(4, 4, 8)
    z, zbar = (part.float().requires_grad_() for part in pair(16, 4))
    estimator.upper_bound(z, zbar).backward()
    assert all(parameter.grad is None for parameter in estimator.parameters())
    assert all(parameter.requires_grad for parameter in estimator.parameters())
    assert z.grad is not None and float(z.grad.abs().sum()) > 0
    assert zbar.grad is not None and float(zbar.grad.abs().sum()) > 0


def test_fitting_q_does_not_touch_the_encoders() -> None:
    torch.manual_seed(0)
    estimator = ClubEstimator(4, 4, 8)
    z, zbar = (part.float().requires_grad_() for part in pair(16, 4))
    estimator.negative_log_likelihood(z, zbar).backward()
    assert z.grad is None and zbar.grad is None
    assert all(float(p.grad.abs().sum()) > 0 for p in estimator.parameters() if p.grad is not None)
    assert all(parameter.grad is not None for parameter in estimator.parameters())


def test_unknown_reduction_is_refused() -> None:
    with pytest.raises(ValueError, match="reduction"):
        ClubEstimator(2, 2, 4, "max")


# ---- InfoNCE ---------------------------------------------------------------------------

WIDTH = 6


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def loop_loss(
    states: torch.Tensor, vectors: torch.Tensor, ids: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Eq. 12 by loops: repetitions of the target are minus infinity, others count once."""
    losses = []
    for state, target in zip(states, ids.tolist()):
        seen, logits, own = set(), [], state.sum()
        for vector, item in zip(vectors, ids.tolist()):
            if item in seen:
                continue
            seen.add(item)
            logit = torch.cosine_similarity(state, vector, dim=0) / temperature
            own = logit if item == target else own
            logits.append(logit)
        losses.append(torch.logsumexp(torch.stack(logits), 0) - own)
    return torch.stack(losses)


@pytest.mark.parametrize("ids", [[1, 2, 3, 4], [5, 2, 5, 5], [3, 3, 3, 3], [9, 1, 9, 1]])
def test_equals_loops(ids: list[int]) -> None:
    table, target = draw(10, WIDTH), torch.tensor(ids)
    states = draw(len(ids), WIDTH, seed=1)
    loss = info_nce(states, table[target], target, 0.1)
    torch.testing.assert_close(loss, loop_loss(states, table[target], target, 0.1))


def test_repeating_a_target_changes_no_loss() -> None:
    table, target = draw(10, WIDTH), torch.tensor([4, 7, 2])
    states = draw(3, WIDTH, seed=1)
    loss = info_nce(states, table[target], target, 0.1)
    more = torch.tensor([4, 7, 2, 4, 4])
    repeated = info_nce(torch.cat([states, draw(2, WIDTH, seed=2)]), table[more], more, 0.1)
    torch.testing.assert_close(repeated[:3], loss)
    other = torch.tensor([4, 7, 2, 8])  # a new item, in contrast, is one more negative
    grown = info_nce(torch.cat([states, draw(1, WIDTH, seed=2)]), table[other], other, 0.1)
    assert (grown[:3] > loss).all()


def test_loss_depends_on_the_cosine_alone() -> None:
    table, target = draw(10, WIDTH), torch.tensor([1, 2, 3])
    states = draw(3, WIDTH, seed=1)
    torch.testing.assert_close(
        info_nce(5 * states, 0.01 * table[target], target, 0.1),
        info_nce(states, table[target], target, 0.1),
    )
