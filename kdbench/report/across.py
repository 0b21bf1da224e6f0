"""Methods over several tables: average ranks with a critical difference, and the probability of improvement.

J. Demšar, Statistical comparisons of classifiers over multiple data sets, JMLR 7, 2006.
R. Agarwal et al., Deep reinforcement learning at the edge of the statistical precipice, NeurIPS 2021.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from kdbench.report.significance import ALPHA

REPLICATES = 2000
_SEED = 0


class Friedman(NamedTuple):
    """Whether any method differs: Friedman's χ², and the F of Iman and Davenport, which is less conservative.

    Attributes:
        freedom: the two degrees of freedom of F.
        p: of F.
    """

    chi2: float
    f: float
    freedom: tuple[int, int]
    p: float


class Improvement(NamedTuple):
    """P(a run of the method is better than one of the other), averaged over tables.

    Attributes:
        low, high: of the 95 % bootstrap interval; None where a side of a table has one run only.
    """

    probability: float
    low: float | None
    high: float | None


def average_ranks(scores: Sequence[Sequence[float]]) -> list[float]:
    """The mean rank of each method; 1 is the highest score of a table, and equal scores share the mean of their ranks.

    Args:
        scores: a row a table, a column a method, none missing.
    """

    def rank(row: Sequence[float], value: float) -> float:
        return sum(other > value for other in row) + (1 + sum(other == value for other in row)) / 2

    return [math.fsum(rank(row, row[i]) for row in scores) / len(scores) for i in range(len(scores[0]))]


def friedman(ranks: Sequence[float], n: int) -> Friedman:
    """Friedman's test on the average ranks of k ≥ 2 methods over n ≥ 2 tables (Demšar, section 3.2.2)."""
    from scipy.special import fdtrc

    k = len(ranks)
    chi2 = 12 * n / (k * (k + 1)) * (math.fsum(rank**2 for rank in ranks) - k * (k + 1) ** 2 / 4)
    freedom = k - 1, (k - 1) * (n - 1)
    rest = n * (k - 1) - chi2
    f = (n - 1) * chi2 / rest if rest > 1e-9 else math.inf  # the same order in all tables
    return Friedman(chi2, f, freedom, float(fdtrc(*freedom, f)) if f < math.inf else 0.0)


def critical_difference(k: int, n: int, alpha: float = ALPHA) -> float:
    """Average ranks of k methods over n tables that differ by less are not told apart (Nemenyi; Demšar, equation 4)."""
    from scipy.stats import studentized_range

    q = float(studentized_range.ppf(1 - alpha, k, math.inf)) / math.sqrt(2)
    return q * math.sqrt(k * (k + 1) / (6 * n))


def improvement(tables: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Improvement:
    """The probability of improvement (Agarwal et al., section 4.3), ties counted half.

    The interval is of a bootstrap that draws the runs of each side of each table anew, from a fixed seed, so that the same
    rows give the same digits.

    Args:
        tables: the accuracies of the method's runs and of the other's, one pair a table, none empty.
    """
    import numpy as np

    wins = [np.array([[(x > y) + (x == y) / 2 for y in sorted(b)] for x in sorted(a)]) for a, b in tables]
    probability = round(math.fsum(float(table.mean()) for table in wins) / len(wins), 9)
    if any(min(table.shape) < 2 for table in wins):
        return Improvement(probability, None, None)
    rng = np.random.RandomState(_SEED)  # its stream never changes; that of default_rng may

    def shares(runs: int) -> np.ndarray:
        """How often each run is drawn, as a share, in each replicate."""
        drawn = (rng.random_sample((REPLICATES, runs)) * runs).astype(int)
        return (drawn[:, :, None] == np.arange(runs)).mean(axis=1)

    drawn = [np.einsum("bi,ij,bj->b", shares(table.shape[0]), table, shares(table.shape[1])) for table in wins]
    low, high = np.quantile(np.mean(drawn, axis=0), [ALPHA / 2, 1 - ALPHA / 2])
    return Improvement(probability, round(float(low), 9), round(float(high), 9))
