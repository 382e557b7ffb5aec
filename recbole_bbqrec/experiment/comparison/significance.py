"""Paired tests of two models over the users of a test split."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.run_files.per_user import PerUser


@dataclass(frozen=True)
class PairedTest:
    """Two models on the same users, both tests two-sided.

    Attributes:
        users: number of pairs.
        difference: mean of (first - second).
        t, p_t: statistic and p-value of the paired t-test (``scipy.stats.ttest_rel``).
        p_wilcoxon: p-value of the signed-rank test (``scipy.stats.wilcoxon``, which leaves out
            users without a difference).
    """

    users: int
    difference: float
    t: float
    p_t: float
    p_wilcoxon: float


def paired_test(first: np.ndarray, second: np.ndarray) -> PairedTest:
    """Test the values of two models, float [U] each, user by user.

    If no user differs, t is 0 and both p-values are 1.
    """
    first, second = first.astype(np.float64), second.astype(np.float64)
    differences = first - second
    mean = float(differences.mean())
    if not differences.any():
        return PairedTest(len(first), mean, 0.0, 1.0, 1.0)
    with warnings.catch_warnings():
        # For equal differences SciPy warns and gives t = +-inf, which is right.
        warnings.simplefilter("ignore", RuntimeWarning)
        t = stats.ttest_rel(first, second)
        wilcoxon = stats.wilcoxon(differences)
    return PairedTest(len(first), mean, float(t.statistic), float(t.pvalue), float(wilcoxon.pvalue))


def mean_over_seeds(seeds: Sequence[PerUser], metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the users' sorted tokens and their means over one model's seeds, float64 [U].

    The mean leaves one value per user, because users are the independent units of the test:
    without it each seed would count as another user.

    Raises:
        UserError: the seeds were tested on different users.
    """
    orders = [np.argsort(seed.users) for seed in seeds]
    users = seeds[0].users[orders[0]]
    total = np.zeros(len(users))
    for seed, order in zip(seeds, orders):
        if not np.array_equal(seed.users[order], users):
            raise UserError("Runs of one comparison were tested on different users.")
        total += seed.metrics[metric][order].astype(np.float64)
    return users, total / len(seeds)


def compare_models(first: Sequence[PerUser], second: Sequence[PerUser], metric: str) -> PairedTest:
    """Test two models, each given as the results of its seeds.

    Raises:
        UserError: they were tested on different users.
    """
    users, values = mean_over_seeds(first, metric)
    others, other_values = mean_over_seeds(second, metric)
    if not np.array_equal(users, others):
        raise UserError("Runs of one comparison were tested on different users.")
    return paired_test(values, other_values)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for the number of tests, by Holm's step-down procedure.

    The chance of one false claim or more among all tests is at most the level (Holm, *A simple
    sequentially rejective multiple test procedure*, 1979). A NaN counts as 1.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    values = np.nan_to_num(np.asarray(p_values, dtype=np.float64), nan=1.0)
    order = np.argsort(values, kind="stable")
    factors = np.arange(len(values), 0, -1)
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(np.maximum.accumulate(values[order] * factors), 1.0)
    return [float(value) for value in corrected]
