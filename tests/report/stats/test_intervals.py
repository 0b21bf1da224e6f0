from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdbench.report.stats.intervals import mean_interval, paired_difference, quantile

percents = st.lists(st.floats(0, 100), min_size=2, max_size=20)


def test_three_values_by_hand():
    # deviation 1, t(2) = 4.302653 (table of the t distribution), over the root of 3
    n, mean, half = mean_interval([60.0, 61.0, 62.0])
    assert (n, mean) == (3, 61.0)
    assert half == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)


def test_two_values_by_hand():
    # deviation √½, t(1) = 12.706205
    assert mean_interval([1.0, 2.0]).half_width == pytest.approx(12.706205 * math.sqrt(0.5) / math.sqrt(2), rel=1e-6)


def test_the_quantile_has_the_same_nine_digits_with_every_scipy():
    # The closed form for two degrees of freedom. With 153, the tenth digit of scipy before 1.17 rounds the other way.
    assert quantile(2) == float(f"{0.95 / math.sqrt(2 * 0.975 * 0.025):.9g}") == 4.30265273
    assert quantile(153) == 1.97559032


def test_agrees_with_scipys_own_interval():
    from scipy import stats

    values = [70.1, 70.9, 69.3, 71.2, 70.4]
    low, high = stats.t.interval(0.95, 4, stats.tmean(values), stats.sem(values))
    n, mean, half = mean_interval(values)
    assert half is not None
    assert (n, mean - half, mean + half) == (5, pytest.approx(low), pytest.approx(high))


def test_one_value_has_no_interval_and_none_has_no_mean():
    assert mean_interval([61.5]) == (1, 61.5, None)
    n, mean, half = mean_interval([])
    assert n == 0
    assert math.isnan(mean)
    assert half is None


def test_equal_values_have_an_interval_of_nothing():
    assert mean_interval([61.3] * 5) == (5, 61.3, 0.0)


def test_difference_is_over_common_seeds():
    # seeds 1 and 2: differences 2 and 4
    n, mean, half = paired_difference({0: 99.0, 1: 62.0, 2: 65.0}, {1: 60.0, 2: 61.0, 3: 1.0})
    assert (n, mean) == (2, 3.0)
    assert half == pytest.approx(12.706205 * math.sqrt(2) / math.sqrt(2), rel=1e-6)
    assert paired_difference({0: 1.0}, {1: 1.0}).n == 0
    assert paired_difference({4: 61.0}, {4: 60.0}) == (1, 1.0, None)


def test_pairing_removes_what_the_seed_adds():
    base = {seed: value for seed, value in enumerate([50.0, 58.0, 66.0])}
    ahead = {seed: value + 1 for seed, value in base.items()}
    assert paired_difference(ahead, base) == (3, 1.0, 0.0)
    assert (mean_interval(ahead.values()).half_width or 0) > 10


@settings(deadline=None)  # the first call imports scipy
@given(percents, st.floats(-100, 100))
def test_shift_moves_the_mean_alone(values, shift):
    before, after = mean_interval(values), mean_interval(v + shift for v in values)
    assert after.mean == pytest.approx(before.mean + shift, abs=1e-9)
    assert after.half_width == pytest.approx(before.half_width, abs=1e-9)


@settings(deadline=None)  # the first call imports scipy
@given(percents, st.floats(0.01, 100))
def test_scale_scales_both(values, scale):
    before, after = mean_interval(values), mean_interval(v * scale for v in values)
    assert after.mean == pytest.approx(before.mean * scale, abs=1e-9)
    assert after.half_width == pytest.approx(before.half_width * scale, abs=1e-9)


@settings(deadline=None)  # the first call imports scipy
@given(percents, st.randoms(use_true_random=False))
def test_order_makes_no_difference_at_all(values, rng: random.Random):
    shuffled = rng.sample(values, len(values))
    assert mean_interval(shuffled) == mean_interval(values)


@settings(deadline=None)  # the first call imports scipy
@given(st.dictionaries(st.integers(0, 5), st.floats(0, 100)), st.dictionaries(st.integers(0, 5), st.floats(0, 100)))
def test_difference_changes_sign_with_the_sides(a, b):
    one, other = paired_difference(a, b), paired_difference(b, a)
    assert one.n == other.n == len(a.keys() & b.keys())
    assert one.half_width == other.half_width
    assert not one.n or one.mean == -other.mean
