from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import studentized_range

from kdbench.report.stats.across import average_ranks, critical_difference, friedman, improvement

# AUC of C4.5 without and with tuned m and cf on 14 data sets: Demšar (JMLR 2006), table 6. Of the row "voting" the paper ranks
# 0.975 and 0.975 as 2 and 3, by digits that it does not print.
DEMSAR = [
    (0.763, 0.768, 0.771, 0.798), (0.599, 0.591, 0.590, 0.569), (0.954, 0.971, 0.968, 0.967), (0.628, 0.661, 0.654, 0.657),
    (0.882, 0.888, 0.886, 0.898), (0.936, 0.931, 0.916, 0.931), (0.661, 0.668, 0.609, 0.685), (0.583, 0.583, 0.563, 0.625),
    (0.775, 0.838, 0.866, 0.875), (1.0, 1.0, 1.0, 1.0), (0.940, 0.962, 0.965, 0.962), (0.619, 0.666, 0.614, 0.669),
    (0.972, 0.981, 0.9751, 0.975), (0.957, 0.978, 0.946, 0.970),
]  # fmt: skip

tables = st.integers(2, 5).flatmap(
    lambda k: st.lists(st.lists(st.integers(0, 9), min_size=k, max_size=k), min_size=2, max_size=6)
)
accuracies = st.lists(st.integers(0, 20).map(float), min_size=1, max_size=5)


def test_demsars_example():
    ranks = average_ranks(DEMSAR)
    assert ranks == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=5e-4)
    test = friedman(DEMSAR)
    assert (test.chi2, test.f, test.freedom) == (pytest.approx(9.28, abs=0.01), pytest.approx(3.69, abs=0.01), (3, 39))
    assert 0.01 < test.p < 0.05, "the paper: critical value 2.85 at 0.05"
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)
    assert critical_difference(4, 14, alpha=0.10) == pytest.approx(1.12, abs=0.005)


@pytest.mark.parametrize(("k", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (6, 2.850), (10, 3.164)])
def test_critical_values_are_those_of_demsars_table_5(k, q):
    # Published tables of the studentized range differ from each other in the last digit.
    assert critical_difference(k, 10) == pytest.approx(q * math.sqrt(k * (k + 1) / 60), rel=5e-4)


@pytest.mark.parametrize("k", [2, 3, 7, 20, 100])
@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.5])
def test_critical_values_are_those_of_scipy(k, alpha):
    q = studentized_range.ppf(1 - alpha, k, math.inf)
    assert critical_difference(k, 10, alpha) == pytest.approx(q * math.sqrt(k * (k + 1) / 120), rel=1e-6)


def test_the_same_order_in_all_tables():
    assert friedman([(3, 2, 1), (9, 8, 7)]) == (pytest.approx(4), math.inf, (2, 2), 1 / 6, True, 1 / 6)
    assert friedman([(2, 1), (9, 8)]).p == 0.5, "which happens by chance in half of all cases"
    assert friedman([range(12), range(12)]).p == pytest.approx(1 / math.factorial(12)), (
        "also where not all orders are counted"
    )


# Exact P(χ² ≥ x), to three digits: S. Siegel, Nonparametric Statistics, 1956, table N.
@pytest.mark.parametrize(
    ("scores", "chi2", "p"),
    [
        ([(3, 2, 1), (3, 1, 2), (3, 2, 1)], 4.667, 0.194),
        ([(3, 2, 1), (3, 2, 1), (3, 1, 2), (3, 2, 1)], 6.5, 0.042),
        ([(4, 3, 2, 1), (4, 3, 1, 2)], 5.4, 0.167),
        ([(4, 3, 2, 1), (4, 3, 2, 1), (4, 3, 1, 2)], 8.2, 0.017),
    ],
)
def test_small_tables_have_the_exact_p_of_published_tables(scores, chi2, p):
    test = friedman(scores)
    assert (test.chi2, test.p, test.exact) == (pytest.approx(chi2, abs=1e-3), pytest.approx(p, abs=5e-4), True)


@settings(max_examples=50)
@given(tables.filter(lambda scores: math.factorial(len(scores[0])) ** len(scores) < 50_000))
def test_the_exact_p_is_a_count_of_all_orders(scores):
    def squares(rows):
        return sum(sum(column) ** 2 for column in zip(*rows, strict=True))

    k = len(scores[0])
    twice = [[round(2 * rank) for rank in average_ranks([row])] for row in scores]
    orders = itertools.product(*(itertools.permutations(row) for row in twice))
    counted = sum(squares(rows) >= squares(twice) for rows in orders) / math.factorial(k) ** len(scores)
    assert friedman(scores).p == pytest.approx(counted)


def test_many_tables_use_f():
    test = friedman([tuple(range(i % 7, 12)) + tuple(range(i % 7)) for i in range(9)])
    assert (test.exact, test.freedom) == (False, (11, 88))
    assert 0 < test.p < 1


@given(tables)
def test_average_ranks_are_a_sharing_of_the_same_sum(scores):
    ranks = average_ranks(scores)
    k = len(ranks)
    assert sum(ranks) == pytest.approx(k * (k + 1) / 2)
    assert average_ranks([[value + 5 for value in row] for row in scores]) == ranks
    assert average_ranks(scores[::-1]) == pytest.approx(ranks)


def test_improvement_by_hand():
    # 3 and 5 against 2 and 4: 3 > 2, 5 > 2, 5 > 4; a tie counts half: 4 against 4 and 1
    estimate = improvement([([3, 5], [2, 4]), ([4, 4], [4, 1])])
    assert estimate.probability == (0.75 + 0.75) / 2
    assert estimate.low is not None
    assert estimate.high is not None
    assert 0.0 <= estimate.low < estimate.probability < estimate.high <= 1.0


def test_the_bootstrap_draws_runs_of_each_side():
    # One table, two runs a side: 3, 5 against 4, 4. The share of draws of 5 is 0, ½ or 1, with ¼, ½, ¼.
    assert improvement([([3, 5], [4, 4])]) == (0.5, 0.0, 1.0)
    # 20 such tables: the mean of 20 shares, with a standard deviation of √(1/8)/√20 = 0.079
    many = improvement([([3, 5], [4, 4])] * 20)
    assert (many.low, many.high) == (
        pytest.approx(0.5 - 1.96 * 0.079, abs=0.03),
        pytest.approx(0.5 + 1.96 * 0.079, abs=0.03),
    )


def test_one_run_on_a_side_has_no_interval():
    assert improvement([([3, 5], [2, 4]), ([3], [1, 2])]) == (0.875, None, None)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(accuracies, accuracies), min_size=1, max_size=3), st.randoms(use_true_random=False))
def test_improvement_turns_round_with_the_sides_and_does_not_depend_on_the_order_of_runs(sides, rng):
    estimate = improvement(sides)
    assert estimate.probability + improvement([(b, a) for a, b in sides]).probability == pytest.approx(1)
    assert improvement([(rng.sample(a, len(a)), rng.sample(b, len(b))) for a, b in sides]) == estimate
