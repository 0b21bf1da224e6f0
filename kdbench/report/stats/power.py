"""Statistical power of the paired t test behind the 95 % intervals of the differences.

Points are percentage points of accuracy; every sd is the sample standard deviation (ddof 1) of paired differences.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable
from functools import cache

from kdbench.report.stats.intervals import Interval, quantile

POWER = 0.8


def threshold(sd: float, n: int) -> float | None:
    """The smallest observed mean difference whose 95 % interval excludes zero: t·s/√n; None for n < 2."""
    _check(sd)
    return quantile(n - 1) * sd / math.sqrt(n) if n >= 2 else None


def detectable(sd: float, n: int, power: float = POWER) -> float | None:
    """The smallest true difference whose 95 % interval excludes zero, on the right side, with probability `power`.

    The t statistic of n differences around δ is noncentral t with n - 1 degrees of freedom and noncentrality δ√n / sd
    (Cohen, Statistical Power Analysis for the Behavioral Sciences, 1988, ch. 2). Intervals on the wrong side of zero are
    no success; at a power of 80 % there are practically none.

    Returns:
        In the unit of `sd`; None for n < 2.

    Raises:
        ValueError: sd is negative or not finite, or power is not at least 0.5 and below 1.
    """
    _check(sd)
    if not 0.5 <= power < 1:
        raise ValueError(f"power must be at least 0.5 and below 1, not {power}")
    return sd * _effect(n, power) if n >= 2 else None


def seeds_needed(sd: float, difference: float, power: float = POWER, most: int = 1000) -> int | None:
    """The smallest n at which a true difference is `detectable`; None if `most` seeds are too few.

    Raises:
        ValueError: see `detectable`; or difference is not above 0.
    """
    if not difference > 0:
        raise ValueError(f"difference must be above 0, not {difference}")

    def enough(n: int) -> bool:
        least = detectable(sd, n, power)
        return least is not None and least <= difference

    counts = range(2, most + 1)
    place = bisect_left(counts, True, key=enough)
    return counts[place] if place < len(counts) else None


def deviation(interval: Interval) -> float | None:
    """The sample standard deviation of the values behind an interval; None for fewer than two."""
    n, _, half = interval
    return None if half is None else half * math.sqrt(n) / quantile(n - 1)


def degrees_of_freedom(intervals: Iterable[Interval]) -> int:
    """Degrees of freedom of the `pooled` sd: n - 1 of each interval."""
    return sum(interval.n - 1 for interval in intervals if interval.n > 1)


def sd_interval(sd: float, freedom: int) -> tuple[float, float]:
    """The 95 % interval of an sd that was estimated with `freedom` degrees of freedom, s √(ν / χ²).

    Raises:
        ValueError: freedom is below 1.
    """
    from scipy.special import chdtri

    if freedom < 1:
        raise ValueError(f"an sd has at least one degree of freedom, not {freedom}")
    low, high = (sd * math.sqrt(freedom / float(chdtri(freedom, tail))) for tail in (0.025, 0.975))
    return low, high


def pooled(intervals: Iterable[Interval]) -> float | None:
    """One sd for several rows: the root mean square of theirs, weighted by degrees of freedom; None if none has one."""
    weighted = [(interval.n - 1, sd) for interval in intervals if (sd := deviation(interval)) is not None]
    freedom = sum(weight for weight, _ in weighted)
    return math.sqrt(math.fsum(weight * sd**2 for weight, sd in weighted) / freedom) if freedom else None


def size_text(difference: float) -> str:
    """A difference in points as text: a second digit only below 1, where one would be all there is."""
    return f"{difference:.1f}" if difference >= 1 else f"{difference:.2f}"


def seeds_needed_text(sd: float, difference: float, most: int = 1000) -> str:
    """`seeds_needed` as text."""
    n = seeds_needed(sd, difference, most=most)
    return f"over {most}" if n is None else str(n)


@cache
def _effect(n: int, power: float) -> float:
    """`detectable` for an sd of 1."""
    from scipy.special import nctdtrinc  # solves for the noncentrality; scipy.stats would take longer to import

    return float(nctdtrinc(n - 1, 1 - power, quantile(n - 1))) / math.sqrt(n)


def _check(sd: float) -> None:
    if not 0 <= sd < math.inf:
        raise ValueError(f"sd must be a finite number from 0, not {sd}")
