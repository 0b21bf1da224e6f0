"""Methods over several tables: average ranks with a critical difference, and the probability of improvement.

J. Demšar, Statistical comparisons of classifiers over multiple data sets, JMLR 7, 2006.
R. Agarwal et al., Deep reinforcement learning at the edge of the statistical precipice, NeurIPS 2021.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from kdbench.report.stats.significance import ALPHA

if TYPE_CHECKING:
    import numpy as np

REPLICATES = 2000
_SEED = 0


class Friedman(NamedTuple):
    """A test of whether any method differs: Friedman's χ², and the F of Iman and Davenport, which is less conservative.

    Attributes:
        freedom: the two degrees of freedom of F.
        p: p-value of F.
    """

    chi2: float
    f: float
    freedom: tuple[int, int]
    p: float


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
        return (drawn[:, :, None] == np.arange(runs)).sum(axis=1).astype(np.uint16)

    return [[counts(runs) for runs in shape] for shape in shapes]
