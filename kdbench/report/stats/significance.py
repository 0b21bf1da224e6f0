"""Significance of differences: t tests, Holm's correction, and the ranks that follow. docs/statistics.md gives the reasons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations, groupby

from kdbench.report.stats.intervals import mean_interval

ALPHA = 0.05
_NOTHING = 1e-6
"""Points; a scatter or a difference of means below this is rounding."""

Accuracies = Mapping[int, float]
"""By seed."""


def paired_p(a: Accuracies, b: Accuracies) -> float | None:
    """Two-sided p value of the paired t test over the seeds that both have.

    Returns:
        None for fewer than two common seeds, and where all differences are equal: their scatter, by which the test
        divides, is unknown then and not zero (accuracies are counts of images, and two counts may agree by chance).
    """
    differences = [a[seed] - b[seed] for seed in a.keys() & b.keys()]
    if len(differences) < 2:
        return None
    mean, variance = _moments(differences)
    error = math.sqrt(variance / len(differences))
    return None if math.sqrt(variance) < _NOTHING else _two_sided(mean / error, len(differences) - 1)


def welch_p(a: Accuracies, b: Accuracies) -> float | None:
    """Two-sided p value of Welch's t test, which pairs nothing and lets the variances differ (Welch, Biometrika 1947).

    Returns:
        None where one side has fewer than two values, or neither scatters.
    """
    if min(len(a), len(b)) < 2:
        return None
    (mean_a, var_a), (mean_b, var_b) = _moments(list(a.values())), _moments(list(b.values()))
    part_a, part_b = var_a / len(a), var_b / len(b)
    if math.sqrt(max(var_a, var_b)) < _NOTHING:
        return None
    freedom = (part_a + part_b) ** 2 / (part_a**2 / (len(a) - 1) + part_b**2 / (len(b) - 1))
    return _two_sided((mean_a - mean_b) / math.sqrt(part_a + part_b), freedom)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values, in the order given (Holm, Scand. J. Statistics 1979).

    What stays at or below α may be called different, with a chance of at most α that any of them is not.
    """
    adjusted = [0.0] * len(p_values)
    least = 0.0
    for place, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        least = max(least, min(1.0, (len(p_values) - place) * p_values[i]))
        adjusted[i] = least
    return adjusted


def ranks(rows: Sequence[Accuracies], alpha: float = ALPHA) -> list[int | None]:
    """1 + the number of rows that are significantly better; worse than theirs, and no better than a row's with a higher mean.

    All pairs are tested, paired where two or more seeds are common, with Welch's test otherwise (and where all differences
    are equal), and Holm's correction is over all of them. The count alone is the lower end of a simultaneous 95 % confidence
    set for the rank (Mogstad, Romano, Shaikh and Wilhelm, Rev. Econ. Studies 2024); the rest keeps a row that scatters much
    from standing above rows that did better, only because nothing can be said of it.

    Returns:
        In the order of `rows`; None for a row with fewer than two values. Rows that share a rank are statistically
        indistinguishable.
    """
    means, order, better = _better(rows, alpha)
    ranked: list[int | None] = [None] * len(rows)
    highest = 1
    for _, alike in groupby(order, key=lambda i: means[i]):  # equal means share a rank
        group = list(alike)
        for i in group:
            highest = max([highest, 1 + len(better[i]), *(1 + (ranked[j] or 0) for j in better[i])])
        for i in group:
            ranked[i] = highest
    return ranked


def best(rows: Sequence[Accuracies], alpha: float = ALPHA) -> int | None:
    """The row that is significantly better than every other one, by the tests of `ranks`.

    Returns:
        Its place; None if there is none, with fewer than two rows, and where a row with a single value cannot be tested.
    """
    measured = [i for i, row in enumerate(rows) if row]
    if len(measured) < 2 or any(len(rows[i]) < 2 for i in measured):
        return None
    _, order, better = _better(rows, alpha)
    first = order[0]
    return first if all(first in better[i] for i in order[1:]) else None


def _better(rows: Sequence[Accuracies], alpha: float) -> tuple[list[float], list[int], list[list[int]]]:
    """Means, the rows from the highest mean to the lowest, and for each row those that are significantly better.

    Rows with fewer than two values have a mean of minus infinity and are not in the order.
    """
    means = [round(mean_interval(row.values()).mean, 6) if len(row) > 1 else -math.inf for row in rows]
    order = sorted((i for i, mean in enumerate(means) if mean > -math.inf), key=lambda i: -means[i])
    pairs = [(i, j) for i, j in combinations(order, 2) if means[i] > means[j]]
    tested = {(i, j): p for i, j in pairs if (p := _that_first_is_better(rows[i], rows[j])) is not None}
    better: list[list[int]] = [[] for _ in rows]
    for (i, j), p in zip(tested, holm(list(tested.values())), strict=True):
        if p <= alpha:
            better[j].append(i)
    return means, order, better


def _that_first_is_better(a: Accuracies, b: Accuracies) -> float | None:
    """The p value of the difference, or 1 where the common seeds speak against the order of the means."""
    p = paired_p(a, b)
    if p is None:
        return welch_p(a, b)
    return p if math.fsum(a[seed] - b[seed] for seed in a.keys() & b.keys()) > 0 else 1.0


def _moments(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample variance (ddof 1)."""
    mean = math.fsum(values) / len(values)
    return mean, math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)


def _two_sided(t: float, freedom: float) -> float:
    from scipy.special import stdtr  # a third of the time that scipy.stats takes to import

    return float(2 * stdtr(freedom, -abs(t)))
