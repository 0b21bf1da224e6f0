"""Methods over several tables: average ranks with a critical difference, and the probability of improvement.

J. Demšar, Statistical comparisons of classifiers over multiple data sets, JMLR 7, 2006.
R. Agarwal et al., Deep reinforcement learning at the edge of the statistical precipice, NeurIPS 2021.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import permutations
from typing import TYPE_CHECKING, NamedTuple

from kdbench.report.stats.significance import ALPHA

if TYPE_CHECKING:
    import numpy as np

REPLICATES = 2000
MOST_SUMS = 250_000
"""Rank sums that the exact test computes for one more table, in a tenth of a second; where there are more, F is accurate."""
_SEED = 0


class Friedman(NamedTuple):
    """A test of whether any method differs: Friedman's χ², and the F of Iman and Davenport, which is less conservative.

    Attributes:
        f: infinite where the order is the same in all tables.
        freedom: the two degrees of freedom of F.
        p: p-value of χ² under all orders of the methods in each table if `exact`, of F otherwise.
        least_p: p-value of the same order of k methods in all n tables, (1/k!)^(n-1): no table without ties gives a smaller one.
    """

    chi2: float
    f: float
    freedom: tuple[int, int]
    p: float
    exact: bool
    least_p: float


class Improvement(NamedTuple):
    """P(a run of the method is better than one of the other), averaged over tables.

    Attributes:
        low, high: ends of the 95 % bootstrap interval; None where a side of a table has only one run.
    """

    probability: float
    low: float | None
    high: float | None


def average_ranks(scores: Sequence[Sequence[float]]) -> list[float]:
    """The mean rank of each method; 1 is the highest score of a table, and equal scores share the mean of their ranks.

    Args:
        scores: one row per table and one column per method, none missing.
    """

    return [math.fsum(column) / len(scores) for column in zip(*map(_ranked, scores), strict=True)]


def _ranked(row: Sequence[float]) -> list[float]:
    """The rank of each score of one table."""
    return [sum(other > value for other in row) + (1 + sum(other == value for other in row)) / 2 for value in row]


def friedman(scores: Sequence[Sequence[float]]) -> Friedman:
    """Friedman's test of k ≥ 2 methods over n ≥ 2 tables (Demšar, section 3.2.2), exact where k and n are small.

    Args:
        scores: one row per table and one column per method, none missing.
    """
    from scipy.special import fdtrc

    n, k = len(scores), len(scores[0])
    ranks = average_ranks(scores)
    chi2 = 12 * n / (k * (k + 1)) * (math.fsum(rank**2 for rank in ranks) - k * (k + 1) ** 2 / 4)
    freedom = k - 1, (k - 1) * (n - 1)
    rest = n * (k - 1) - chi2
    f = (n - 1) * chi2 / rest if rest > 1e-9 else math.inf  # the same order in all tables
    least = (1 / math.factorial(k)) ** (n - 1)
    p = least if f == math.inf else _exact_p([_ranked(row) for row in scores])
    return Friedman(chi2, f, freedom, float(fdtrc(*freedom, f)) if p is None else p, p is not None, least)


def _exact_p(ranks: Sequence[Sequence[float]]) -> float | None:
    """The share of all orders of the methods in each table whose χ² is at least that of these ranks; None if there are too many.

    The tables are added one after the other. Rank sums that are equal but for their order have the same future, so that one
    of them, sorted, stands for all.

    Args:
        ranks: one row per table; ties have the mean of their ranks, and keep them in all orders.
    """
    import numpy as np

    k = len(ranks[0])
    if math.factorial(k) > MOST_SUMS:
        return None
    twice = [[round(2 * rank) for rank in row] for row in ranks]  # integers, so that equal sums are equal
    observed = sum(sum(column) ** 2 for column in zip(*twice, strict=True))
    orders = np.array(list(permutations(range(k))))
    sums: np.ndarray
    shares: np.ndarray
    sums, shares = np.array([sorted(twice[0])]), np.array([1.0])
    for row in twice[1:]:
        if len(sums) * len(orders) > MOST_SUMS:
            return None
        every = np.sort((sums[:, None, :] + np.array(row)[orders][None, :, :]).reshape(-1, k), axis=1)
        code = every @ (2 * k * len(ranks) + 1) ** np.arange(k, dtype=np.int64)
        _, first, place = np.unique(code, return_index=True, return_inverse=True)
        weights = np.repeat(shares / len(orders), len(orders))
        sums, shares = every[first], np.bincount(place.ravel(), weights)
    return min(1.0, round(math.fsum(shares[(sums**2).sum(axis=1) >= observed]), 12))


def critical_difference(k: int, n: int, alpha: float = ALPHA) -> float:
    """The smallest significant difference of the average ranks of k methods over n tables (Nemenyi; Demšar, equation 4)."""
    return _range_quantile(1 - alpha, k) / math.sqrt(2) * math.sqrt(k * (k + 1) / (6 * n))


def _range_quantile(p: float, k: int) -> float:
    """The quantile of the range of k standard normal values: the studentised range with infinite degrees of freedom.

    P(range ≤ q) = k ∫ φ(z) (Φ(z) - Φ(z - q))^(k-1) dz, over the largest value z.
    """
    # scipy.stats.studentized_range gives the same to 12 digits, but importing scipy.stats doubles the CPU time of
    # `kdbench leaderboard --check` (1.0 to 1.9 s). A test compares the two.
    import numpy as np
    from scipy.special import ndtr

    z = np.linspace(-9, 9, 1801)  # the trapezoid rule is exact to 1e-12 here
    density = k * np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
    low, high = 0.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        below = float((density * (ndtr(z) - ndtr(z - middle)) ** (k - 1)).sum())
        low, high = (middle, high) if below < p else (low, middle)
    return high


def improvement(tables: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Improvement:
    """The probability of improvement (Agarwal et al., section 4.3), ties counted half.

    The interval comes from a bootstrap that resamples the runs of each side of each table, from a fixed seed, so that the
    same records give the same digits.

    Args:
        tables: the accuracies of the method's runs and of the other's, one pair per table, none empty.
    """
    import numpy as np

    wins = [np.array([[(x > y) + (x == y) / 2 for y in sorted(b)] for x in sorted(a)]) for a, b in tables]
    probability = round(math.fsum(float(table.mean()) for table in wins) / len(wins), 9)
    if any(min(table.shape) < 2 for table in wins):
        return Improvement(probability, None, None)
    drawn = np.zeros(REPLICATES)
    for table, (a, b) in zip(wins, _draws(tuple(table.shape for table in wins)), strict=True):
        drawn += ((a @ table) * b).sum(axis=1) / table.size
    low, high = np.quantile(drawn / len(wins), [ALPHA / 2, 1 - ALPHA / 2])
    return Improvement(probability, round(float(low), 9), round(float(high), 9))


@lru_cache(maxsize=1)  # methods that are compared over the same tables mostly have the same seeds
def _draws(shapes: tuple[tuple[int, ...], ...]) -> list[list[np.ndarray]]:
    """For both sides of each table, how often each run is drawn in each replicate: (REPLICATES, runs)."""
    import numpy as np

    rng = np.random.RandomState(_SEED)  # its stream never changes; that of default_rng may

    def counts(runs: int) -> np.ndarray:
        drawn = (rng.random_sample((REPLICATES, runs)) * runs).astype(int)
        counts: np.ndarray = (drawn[:, :, None] == np.arange(runs)).sum(axis=1).astype(np.uint16)
        return counts

    return [[counts(runs) for runs in shape] for shape in shapes]
