import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdbench.measures.convergence import Point, area, convergence, read

CURVE = [Point(100, 1.0, 30.0), Point(200, 2.5, 20.0), Point(400, 4.0, 60.0)]


def test_the_area_by_hand():
    # From 10 % at 0 images: trapezoids of 100, 100 and 200 images.
    assert area(CURVE, 10.0) == pytest.approx((100 * 20 + 100 * 25 + 200 * 40) / 400)


def test_when_an_accuracy_was_first_reached_is_not_interpolated():
    entries = convergence(CURVE, 10.0, (20.0, 30, 30.5, 60, 61))
    assert {key: value for key, value in entries.items() if key.startswith("convergence.images")} == {
        "convergence.images.20": 100,
        "convergence.images.30": 100,
        "convergence.images.30.5": 400,
        "convergence.images.60": 400,
        "convergence.images.61": None,
    }
    assert entries["convergence.seconds.30.5"] == 4.0
    assert entries["convergence.seconds.61"] is None
    assert entries["convergence.highest"] == 60.0


def test_without_a_validation_split_there_is_nothing(tmp_path):
    file = tmp_path / "epochs.csv"
    file.write_text("epoch,images,seconds,lr,accuracy.val,loss\n1,100,1.0,0.1,,2.3\n")
    assert read(file) == []
    assert set(convergence([], 10.0, (10.0,)).values()) == {None}


def test_the_curve_is_read_from_the_file_of_epochs(tmp_path):
    file = tmp_path / "epochs.csv"
    lines = [f"{n},{point.images},{point.seconds},0.1,{point.accuracy},2.3" for n, point in enumerate(CURVE, start=1)]
    file.write_text("epoch,images,seconds,lr,accuracy.val,loss\n" + "\n".join(lines) + "\n")
    assert read(file) == CURVE


@given(st.lists(st.tuples(st.integers(1, 1000), st.floats(0, 100)), min_size=1, max_size=20), st.floats(0, 50))
def test_the_area_lies_between_the_lowest_and_the_highest_accuracy(steps, chance):
    images, curve = 0, []
    for more, accuracy in steps:
        images += more
        curve.append(Point(images, 0.0, accuracy))
    every = [chance, *(point.accuracy for point in curve)]
    assert min(every) - 1e-5 <= area(curve, chance) <= max(every) + 1e-5
