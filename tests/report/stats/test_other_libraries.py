"""Statistics against statsmodels, scikit-posthocs and scipy, where they have the same thing."""

import math

import numpy as np
import pytest
from scipy import stats

from kdbench.report.stats import across, intervals, power, significance


def draws(seed, *shape):
    return np.random.default_rng(seed).normal(70, 2, shape)


@pytest.mark.parametrize(("seed", "n"), [(0, 3), (1, 4), (2, 5), (3, 12)])
def test_paired_and_welch_tests_and_their_intervals(seed, n):
    a, b = draws(seed, 2, n)
    by_seed = dict(enumerate(a)), dict(enumerate(b))
    paired = stats.ttest_rel(a, b)
    assert significance.paired_p(*by_seed) == pytest.approx(paired.pvalue, rel=1e-6)
    low, high = paired.confidence_interval(0.95)
    interval = intervals.paired_difference(*by_seed)
    assert (interval.mean, interval.half_width) == pytest.approx(((low + high) / 2, (high - low) / 2), rel=1e-6)
    welch = stats.ttest_ind(a, b[:-1], equal_var=False)
    assert significance.welch_p(by_seed[0], dict(enumerate(b[:-1]))) == pytest.approx(welch.pvalue, rel=1e-6)


@pytest.mark.parametrize("n", [1, 2, 7, 30])
def test_holm(n):
    p_values = (np.random.default_rng(n).random(n) ** 4).tolist()
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    assert significance.holm(p_values) == pytest.approx(multitest.multipletests(p_values, method="holm")[1])


@pytest.mark.parametrize(("seed", "tables", "methods"), [(0, 6, 3), (1, 12, 5), (2, 8, 7)])
def test_average_ranks_and_friedman(seed, tables, methods):
    scores = draws(seed, tables, methods)
    ranked = stats.rankdata(-scores, axis=1).mean(axis=0)
    assert across.average_ranks(scores.tolist()) == pytest.approx(ranked.tolist())
    found = across.friedman(scores.tolist())
    assert found.chi2 == pytest.approx(stats.friedmanchisquare(*scores.T).statistic)


@pytest.mark.parametrize("k", [2, 3, 5, 10])
def test_the_critical_difference_is_where_nemenyi_becomes_significant(k):
    posthocs = pytest.importorskip("scikit_posthocs")
    n = 12
    scores = np.tile(np.arange(k, dtype=float), (n, 1))
    p = posthocs.posthoc_nemenyi_friedman(scores).to_numpy()
    critical = across.critical_difference(k, n)
    for i in range(k):
        for j in range(k):
            if i != j:  # the average ranks differ by |i − j|
                assert (p[i, j] <= significance.ALPHA) == (abs(i - j) >= critical)


@pytest.mark.parametrize("n", [3, 5, 10])
def test_power_of_the_paired_t_test(n):
    solver = pytest.importorskip("statsmodels.stats.power").TTestPower()
    sd = 0.7
    effect = solver.solve_power(nobs=n, alpha=significance.ALPHA, power=power.POWER, alternative="two-sided")
    assert power.detectable(sd, n) == pytest.approx(sd * effect, rel=1e-3)
    needed = solver.solve_power(effect_size=0.5 / sd, alpha=significance.ALPHA, power=power.POWER)
    assert power.seeds_needed(sd, 0.5) == math.ceil(needed)
