from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdbench.report.stats.significance import holm, paired_p, ranks, welch_p

# Student's (1908) own example of the paired test: hours of sleep gained with two drugs, ten patients (R: datasets::sleep).
FIRST = dict(enumerate([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]))
SECOND = dict(enumerate([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]))

eighths = st.integers(0, 800).map(lambda value: value / 8)  # exact, so that a shift changes no difference
rows = st.lists(st.dictionaries(st.integers(0, 5), eighths, min_size=1), min_size=1, max_size=6)
ps = st.lists(st.floats(0, 1), max_size=12)


def test_students_sleep_data():
    assert paired_p(FIRST, SECOND) == pytest.approx(0.00283289, rel=1e-5)  # t.test(paired = TRUE): t = -4.0621, df = 9
    assert welch_p(FIRST, SECOND) == pytest.approx(0.07939414, rel=1e-6)  # t.test: t = -1.8608, df = 17.776


def test_three_seeds_by_hand():
    # differences 1, 2, 3: t = 2/(1/√3) = 3.4641; for 2 degrees of freedom p = 1 - t/√(t² + 2) = 1 - √(12/14)
    assert paired_p({0: 11, 1: 22, 2: 33}, {0: 10, 1: 20, 2: 30, 3: 1}) == pytest.approx(1 - (12 / 14) ** 0.5)


def test_too_few_seeds_or_no_scatter_give_no_p_value():
    assert paired_p({0: 1.0, 1: 2.0}, {1: 1.0, 2: 2.0}) is None
    assert paired_p({0: 50.1, 1: 51.1}, {0: 49.1, 1: 50.1}) is None, "also where the last digits differ"
    assert welch_p({0: 1.0}, {1: 2.0, 2: 3.0}) is None
    assert welch_p({0: 1.0, 1: 1.0}, {2: 2.0, 3: 2.0}) is None
    assert welch_p({0: 1.0, 1: 1.0}, {2: 2.0, 3: 2.5}) is not None


def test_holm_by_hand():
    # sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, and 0.04, which is raised to 0.06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


@given(ps, st.randoms(use_true_random=False))
def test_holm_is_above_raw_below_bonferroni_monotone_and_without_order(p, rng):
    adjusted = holm(p)
    assert all(raw <= held <= min(1.0, raw * len(p)) for raw, held in zip(p, adjusted, strict=True))
    pairs = sorted(zip(p, adjusted, strict=True))
    assert [held for _, held in pairs] == sorted(adjusted)
    order = rng.sample(range(len(p)), len(p))
    assert holm([p[i] for i in order]) == [adjusted[i] for i in order]


def around(mean, *offsets):
    return {seed: mean + offset for seed, offset in enumerate(offsets)}


CLEAR = (0.02, -0.01, -0.01), (-0.01, 0.02, -0.01), (0.0, 0.01, -0.02), (0.01, -0.02, 0.01)


def test_rows_that_are_told_apart_have_ranks_of_their_own():
    assert ranks([around(60, *CLEAR[0]), around(50, *CLEAR[1]), around(70, *CLEAR[2])]) == [2, 3, 1]


def test_rows_that_are_not_told_apart_share_a_rank():
    noise = (0.0, 2.0, -2.0), (1.5, -2.0, 0.5), (-1.0, -0.5, 1.5)
    leaders = [around(60 + i / 10, *offsets) for i, offsets in enumerate(noise)]
    assert ranks([*leaders, around(5, *CLEAR[0])], alpha=0.2) == [1, 1, 1, 4]


def test_a_row_that_scatters_much_stands_no_higher_than_one_above_it():
    first, second, noisy = around(60, *CLEAR[0]), around(59, *CLEAR[1]), around(58, 9.0, -9.0, 0.0)
    assert ranks([first, second]) == [1, 2]
    assert ranks([noisy, second, first]) == [2, 2, 1]


def test_rows_that_are_told_apart_never_share_a_rank():
    """The last two scatter so much, and alike, that they differ from each other and from nothing above."""
    first, second = around(60, *CLEAR[0]), around(59, *CLEAR[1])
    noisy = around(58, 9.01, -9.0, -0.01)
    assert ranks([first, second, noisy, around(57, 9.0, -8.99, -0.01)]) == [1, 2, 2, 3]


def test_one_seed_has_no_rank_and_costs_the_others_nothing():
    first, second = around(60, *CLEAR[0]), around(50, *CLEAR[1])
    assert ranks([first, {0: 99.0}, second, {}]) == [1, None, 2, None]


def test_rows_without_common_seeds_are_compared_by_welch():
    other = {seed + 10: value for seed, value in around(50, *CLEAR[1]).items()}
    assert ranks([around(60, *CLEAR[0]), other]) == [1, 2]


def test_rows_that_differ_by_the_same_in_every_seed_are_compared_by_welch():
    base = around(50, -1.0, 0.0, 1.0)
    assert [ranks([{s: v + ahead for s, v in base.items()}, base]) for ahead in (10, 0.1)] == [[1, 2], [1, 1]]


def test_common_seeds_that_speak_against_the_means_tell_nothing():
    first = around(50, *CLEAR[0]) | {7: 90.0, 8: 91.0}
    assert ranks([first, around(60, *CLEAR[1]) | {9: 1.0, 10: 2.0}]) == [1, 1]


def test_false_alarms_stay_below_five_percent():
    """Tables of five equal rows, three seeds, unequal scatter: how often any row gets another rank than 1."""
    rng, trials = random.Random(4), 1500
    alarms = 0
    for _ in range(trials):
        made = [{seed: rng.gauss(50, 0.2 * (1 + i)) for seed in range(3)} for i in range(5)]
        alarms += set(ranks(made)) != {1}
    assert alarms / trials < 0.05 + 3 * (0.05 * 0.95 / trials) ** 0.5


@settings(deadline=None)  # the first call imports scipy
@given(rows, st.integers(-50, 50), st.randoms(use_true_random=False))
def test_ranks_do_not_depend_on_the_order_or_on_a_common_shift(made, shift, rng):
    ranked = ranks(made)
    assert ranks([{seed: value + shift for seed, value in row.items()} for row in made]) == ranked
    order = rng.sample(range(len(made)), len(made))
    assert ranks([made[i] for i in order]) == [ranked[i] for i in order]


@settings(deadline=None)
@given(rows)
def test_ranks_follow_the_means(made):
    pairs = [(sum(row.values()) / len(row), rank) for row, rank in zip(made, ranks(made), strict=True) if rank]
    assert all(rank == 1 or mean < max(m for m, _ in pairs) for mean, rank in pairs)
    assert [rank for _, rank in sorted(pairs, key=lambda p: (-p[0], p[1]))] == sorted(rank for _, rank in pairs)
