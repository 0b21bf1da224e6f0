from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdbench.report.stats.intervals import Interval, mean_interval
from kdbench.report.stats.power import (
    detectable,
    deviation,
    pooled,
    seeds_needed,
    seeds_needed_text,
    size_text,
    threshold,
)

sds = st.floats(1e-3, 50)
counts = st.integers(2, 300)


@pytest.mark.parametrize(
    ("effect", "power", "n"),
    [
        # sample sizes of the one-sample (paired) t test, two-sided, α = 0.05: G*Power, and R's power.t.test
        (0.2, 0.8, 199),
        (0.5, 0.8, 34),
        (0.8, 0.8, 15),
        (1.0, 0.8, 10),
        (0.5, 0.9, 44),
        (0.5, 0.95, 54),
    ],
)
def test_seeds_needed_are_those_of_the_tables(effect, power, n):
    assert seeds_needed(1.0, effect, power) == n
    assert detectable(1.0, n, power) <= effect < detectable(1.0, n - 1, power)


def test_threshold_is_the_half_width_of_the_interval():
    # t(2) = 4.302653, t(1) = 12.706205 (table of the t distribution)
    assert threshold(0.61, 3) == pytest.approx(4.302653 * 0.61 / math.sqrt(3), rel=1e-6)
    assert threshold(2.0, 2) == pytest.approx(12.706205 * 2.0 / math.sqrt(2), rel=1e-6)
    interval = mean_interval([0.3, 1.1, -0.4, 0.9])
    assert threshold(deviation(interval), 4) == pytest.approx(interval.half_width, rel=1e-12)


@pytest.mark.parametrize(("n", "power"), [(2, 0.8), (3, 0.8), (5, 0.5), (10, 0.95)])
def test_so_many_intervals_of_simulated_seeds_exclude_zero(n, power):
    rng, sd, trials = random.Random(7), 1.7, 20_000
    true = detectable(sd, n, power)
    shown = 0
    for _ in range(trials):
        interval = mean_interval([rng.gauss(true, sd) for _ in range(n)])
        shown += interval.mean - interval.half_width > 0
    assert shown / trials == pytest.approx(power, abs=4 * math.sqrt(power * (1 - power) / trials))


def test_too_few_seeds_show_nothing():
    assert [detectable(1.0, n) for n in (0, 1)] == [None, None]
    assert [threshold(1.0, n) for n in (0, 1)] == [None, None]
    assert seeds_needed(1.0, 0.05) is None  # 3142 or so
    assert seeds_needed(1.0, 0.5, most=33) is None
    assert seeds_needed(1.0, 0.5, most=34) == 34
    assert seeds_needed(1.0, 0.05, most=5000) == pytest.approx((1.959964 + 0.841621) ** 2 / 0.05**2, rel=2e-3)
    assert seeds_needed(1.0, 100.0) == 2


def test_differences_that_do_not_scatter_are_seen_at_once():
    assert (detectable(0.0, 2), threshold(0.0, 2), seeds_needed(0.0, 1e-9)) == (0.0, 0.0, 2)


@pytest.mark.parametrize("sd", [-1.0, math.nan, math.inf])
def test_an_sd_that_cannot_be_is_refused(sd):
    for wrong in (lambda: detectable(sd, 3), lambda: threshold(sd, 3), lambda: seeds_needed(sd, 1.0)):
        with pytest.raises(ValueError, match="sd must be"):
            wrong()


def test_powers_and_differences_that_cannot_be_are_refused():
    for power in (0.0, 0.4, 1.0, math.nan):
        with pytest.raises(ValueError, match="power must be"):
            detectable(1.0, 3, power)
    for difference in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="difference must be"):
            seeds_needed(1.0, difference)


@settings(deadline=None)  # the first call imports scipy
@given(sds, counts, st.sampled_from([0.5, 0.8, 0.9, 0.99]))
def test_more_seeds_show_smaller_differences(sd, n, power):
    assert detectable(sd, n + 1, power) < detectable(sd, n, power)
    assert threshold(sd, n + 1) < threshold(sd, n)


@settings(deadline=None)
@given(sds, counts, st.floats(0.01, 100))
def test_both_scale_with_the_sd(sd, n, scale):
    assert detectable(scale * sd, n) == pytest.approx(scale * detectable(sd, n), rel=1e-9)
    assert threshold(scale * sd, n) == pytest.approx(scale * threshold(sd, n), rel=1e-9)


@settings(deadline=None)
@given(sds, counts)
def test_what_is_found_four_times_in_five_lies_above_what_shows_at_all(sd, n):
    assert detectable(sd, n) > threshold(sd, n) > 0
    assert detectable(sd, n, 0.9) > detectable(sd, n, 0.8)


@settings(deadline=None)
@given(sds, counts)
def test_seeds_needed_is_the_inverse_of_detectable(sd, n):
    assert seeds_needed(sd, detectable(sd, n)) == n
    assert seeds_needed(sd, 0.999999 * detectable(sd, n)) == n + 1


def test_pooled_by_degrees_of_freedom():
    two, three = mean_interval([0.0, 2.0]), mean_interval([1.0, 2.0, 3.0])  # variances 2 and 1
    assert deviation(two) == pytest.approx(math.sqrt(2))
    assert pooled([two, three]) == pytest.approx(math.sqrt((1 * 2 + 2 * 1) / 3))
    assert pooled([three, mean_interval([5.0])]) == pytest.approx(1.0)
    assert pooled([]) is pooled([Interval(1, 5.0, None)]) is None


def test_texts():
    assert [size_text(value) for value in (12.34, 1.0, 0.949, 0.04)] == ["12.3", "1.0", "0.95", "0.04"]
    assert [seeds_needed_text(1.0, size) for size in (0.5, 0.05)] == ["34", "over 1000"]
