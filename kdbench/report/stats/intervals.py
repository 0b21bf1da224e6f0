"""Mean and 95 % interval over seeds, alone and as a difference paired by seed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import cache
from typing import NamedTuple

from kdbench.words import nine_digits


class Interval(NamedTuple):
    """A mean with its 95 % interval.

    Attributes:
        n: number of values.
        mean: NaN without values.
        half_width: half-width of the t interval with the sample standard deviation (ddof 1); None for fewer than two values.
    """

    n: int
    mean: float
    half_width: float | None


@cache
def quantile(freedom: int) -> float:
    """The 97.5 % point of Student's t distribution, the t of a two-sided 95 % interval, to nine digits."""
    from scipy.special import stdtr, stdtrit  # a third of the time that scipy.stats takes to import

    # The same records must give the same files everywhere, and versions of scipy agree to ten digits of stdtrit only, but to
    # all of stdtr: a step of Newton's method makes the difference vanish, also where the tenth digit decides how to round.
    t = float(stdtrit(freedom, 0.975))
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
    density = scale * (1 + t * t / freedom) ** (-(freedom + 1) / 2)
    return nine_digits(t - (float(stdtr(freedom, t)) - 0.975) / density)


def mean_interval(values: Iterable[float]) -> Interval:
    """Mean and t interval; the order of the values makes no difference, not even in the last digit."""
    values = list(values)
    n = len(values)
    if n == 0:
        return Interval(0, math.nan, None)
    mean = math.fsum(values) / n
    if n == 1:
        return Interval(1, mean, None)
    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    return Interval(n, mean, quantile(n - 1) * deviation / math.sqrt(n))


def paired_difference(a: Mapping[int, float], b: Mapping[int, float]) -> Interval:
    """`a` minus `b` over the seeds that both have.

    Under one seed all methods start from the same weights and see the same images, and what that adds to both cancels.
    """
    return mean_interval(a[seed] - b[seed] for seed in a.keys() & b.keys())
