"""Paired tests over the users of a test split: is one model better than another on them?"""

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
        p_wilcoxon: p-value of the signed-rank test (``scipy.stats.wilcoxon``; users without a
            difference are left out, SciPy's default).
    """

    users: int
    difference: float
    t: float
    p_t: float
    p_wilcoxon: float


def paired_test(first: np.ndarray, second: np.ndarray) -> PairedTest:
    """Test two models' values, float [U] each, user by user.

    Where no user differs there is nothing to test: t is 0 and both p-values are 1.
    """
    first, second = first.astype(np.float64), second.astype(np.float64)
    differences = first - second
    mean = float(differences.mean())
    if not differences.any():
        return PairedTest(len(first), mean, 0.0, 1.0, 1.0)
    with warnings.catch_warnings():
        # Equal differences for all users: SciPy warns and gives t = +-inf, which is right.
        warnings.simplefilter("ignore", RuntimeWarning)
        t = stats.ttest_rel(first, second)
        wilcoxon = stats.wilcoxon(differences)
    return PairedTest(len(first), mean, float(t.statistic), float(t.pvalue), float(wilcoxon.pvalue))


def mean_over_seeds(seeds: Sequence[PerUser], metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Each user's mean over the seeds of one model: tokens sorted, and float64 [U].

    Averaging first leaves one value a user, so that users are the only independent units of the
    test; seeds of one user would be counted as if they were other users.

    Raises:
        UserError: the seeds have been tested on different users.
    """
    order = [np.argsort(one.users) for one in seeds]
    users = seeds[0].users[order[0]]
    total = np.zeros(len(users))
    for one, by_user in zip(seeds, order):
        if not np.array_equal(one.users[by_user], users):
            raise UserError("Runs of one comparison were tested on different users.")
        total += one.metrics[metric][by_user].astype(np.float64)
    return users, total / len(seeds)


def compare_models(first: Sequence[PerUser], second: Sequence[PerUser], metric: str) -> PairedTest:
    """Test two models, each given by its seeds.

    Raises:
        UserError: not all were tested on the same users.
    """
    users, values = mean_over_seeds(first, metric)
    others, other_values = mean_over_seeds(second, metric)
    if not np.array_equal(users, others):
        raise UserError("Runs of one comparison were tested on different users.")
    return paired_test(values, other_values)
