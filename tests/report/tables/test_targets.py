"""An empty cell: never reached, or not looked at. The curves of real runs decide what is right."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdbench.measures.convergence import Point, convergence
from kdbench.report.records import cell
from kdbench.report.tables.targets import never_reached, target

TENS = tuple(range(10, 100, 10))


def row(result):
    """A row of the CSV file, where what is None and what is not there are one."""
    return {key: cell(value) for key, value in result.items() if value is not None}


def result(accuracies, wanted):
    curve = [Point(100 * n, float(n), target) for n, target in enumerate(accuracies, start=1)]
    return {"accuracy.val": accuracies[-1]} | convergence(curve, 10.0, wanted)


def older(made):
    return {key: value for key, value in made.items() if key != "convergence.highest"}


CURVES = st.lists(st.floats(0, 100), min_size=1, max_size=6)


@given(CURVES, st.floats(1, 100), st.sets(st.integers(1, 100)))
def test_of_a_curve_that_is_known_the_truth_is_told_whatever_was_asked_for(accuracies, wanted, asked):
    assert never_reached(row(result(accuracies, sorted(asked))), wanted) == (max(accuracies) < wanted)


@given(CURVES, st.sampled_from(TENS))
def test_runs_from_before_the_highest_accuracy_was_told_were_asked_for_the_tens(accuracies, wanted):
    made = older(result(accuracies, TENS))
    assert never_reached(row(made), wanted) == (made[f"convergence.images.{wanted}"] is None)


@pytest.mark.parametrize(
    ("accuracies", "asked", "wanted"),
    [
        ([20.0, 45.0], TENS, 45),  # below what the tens tell, and not asked for
        ([20.0, 45.0], TENS, 50.5),  # nobody can say that this was asked for
        ([20.0, 45.0], (35,), 50),  # 10 was passed and is not told: others than the tens were asked for
        ([50.0, 20.0], (45,), 30),  # 45 was passed
    ],
)
def test_and_what_they_were_not_asked_for_is_not_known(accuracies, asked, wanted):
    assert not never_reached(row(older(result(accuracies, asked))), wanted)


def test_without_a_curve_nothing_was_looked_at():
    assert not never_reached(row(convergence([], 10.0, TENS)), 50)
    assert not never_reached({}, 50)


def test_which_columns_wait():
    assert target("convergence.images.30.5") == 30.5
    assert target("convergence.seconds.60") == 60
    assert [target(key) for key in ("convergence.auc", "convergence.images.x", "accuracy.last", "")] == [None] * 4
