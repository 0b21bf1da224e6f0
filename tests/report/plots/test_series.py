"""The numbers of the pictures, against definitions and hand computation."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdbench.measures import convergence
from kdbench.report.plots.series import band, costs, curves, early_exits, exits, labels, pareto, severities
from kdbench.report.tables.tables import summarise

T2 = 4.302653  # Student's t, 97.5 %, two degrees of freedom
HEAD = "epoch,images,seconds,accuracy.val\n"


def table(*results):
    (only,) = summarise(results)
    return only


def numbers(points):
    return [(point.x.mean, point.y.mean) for point in points]


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6)), max_size=12))
def test_the_pareto_front_is_what_nothing_beats(points):
    def beats(a, b):
        return (a[0] < b[0] and a[1] >= b[1]) or (a[0] <= b[0] and a[1] > b[1])

    expected = {i for i, point in enumerate(points) if not any(beats(other, point) for other in points)}
    front = pareto(points)
    assert set(front) == expected
    assert len(front) == len(expected)
    assert [points[i] for i in front] == sorted(points[i] for i in front)


def test_a_band_by_hand():
    """45, 47, 49: mean 47, standard deviation 2."""
    seeds = [[convergence.Point(10, 1.0, 45 + 2 * i), convergence.Point(20, 2.0, 60.0)] for i in range(3)]
    first, last = band(seeds)
    assert (first.x.mean, first.x.half_width) == (10.0, None)
    assert (first.y.n, first.y.mean, first.y.half_width) == (3, 47.0, pytest.approx(T2 * 2 / 3**0.5, rel=1e-6))
    assert last.y == (3, 60.0, 0.0)


def test_one_seed_has_no_band():
    (point,) = band([[convergence.Point(10, 1.0, 45.0)]])
    assert point.y == (1, 45.0, None)


def test_a_band_ends_where_the_first_seed_does():
    one = [convergence.Point(n, 1.0, 40.0 + n) for n in (1, 2, 3)]
    assert numbers(band([one, one[:2]])) == [(1.0, 41.0), (2.0, 42.0)]
    assert band([one, [convergence.Point(9, 1.0, 50.0)]]) == []
    assert band([]) == []


def test_curves_of_damaged_and_missing_epochs(result, store):
    rows = [result("ce", seed) for seed in range(3)] + [result("kd", seed) for seed in range(2)] + [result("at", 0)]
    runs = store(*rows)
    (runs / "ce0" / "epochs.csv").write_text(HEAD + "1,10,1,40\n2,20,2,50\n")
    (runs / "ce1" / "epochs.csv").write_text(HEAD + "1,10,1,42\n2,20,2,nan\n")
    (runs / "ce2" / "epochs.csv").write_bytes(b"\xff\0")
    (runs / "kd0" / "epochs.csv").write_text(HEAD + "1,10,1,\n")
    (runs / "kd1" / "epochs.csv").write_text(HEAD + "x" * 200_000 + ",1\n1," + "9" * 400 + ",1,40\n")
    series = curves(table(*rows), runs)
    assert [(one.label, numbers(one.points)) for one in series.series] == [("ce", [(10.0, 41.0)])]
    assert series.folders == 5


def test_severities_are_in_order_and_begin_with_the_clean_images(result):
    levels = {f"robustness.severity.{s}": 50.0 - s for s in (5, 3, 1)}
    rows = [result("ce", 0, 60.0) | levels, result("kd", 0), result("at", 0, None, status="failed", error="boom")]
    (one,) = severities(table(*rows))
    assert (one.label, numbers(one.points)) == ("ce", [(0.0, 60.0), (1.0, 49.0), (3.0, 47.0), (5.0, 45.0)])


def test_severities_have_the_intervals_of_the_tables(result):
    rows = [result("ce", seed, 50.0) | {"robustness.severity.1": 30.0 + 2 * seed} for seed in range(3)]
    (one,) = severities(table(*rows))
    assert one.points[1].y == (3, 32.0, pytest.approx(T2 * 2 / 3**0.5, rel=1e-6))


def test_exits_are_by_flops_with_the_deployed_network_among_them(result):
    flops = {"cost.flops": 30, "cost.flops.exit1": 10, "cost.flops.exit2": 20, "cost.flops.ensemble": 40}
    accuracies = {"exits.exit1": 41.0, "exits.exit2": 40.0, "exits.ensemble": 55.0, "exits.unknown": 1.0}
    rows = [result("byot", 0, 50.0) | flops | accuracies, result("corsd") | {"exits.exit1": 3.0}, result("ce")]
    (one,) = exits(table(*rows), "deployed")
    assert [(point.name, point.x.mean, point.y.mean) for point in one.points] == [
        ("exit1", 10, 41), ("exit2", 20, 40), ("deployed", 30, 50), ("ensemble", 40, 55),
    ]  # fmt: skip


def test_cost_is_seconds_on_one_device_and_flops_on_several(result):
    known = {"cost.flops_training": 2.0}
    rows = [result("ce", seed, seconds__train=10.0 + seed) | known for seed in range(2)]
    axis = costs(table(*rows))
    assert axis.axis == "training time, seconds (cpu)"
    assert (axis.series[0].points[0].x.mean, axis.series[0].points[0].x.n) == (10.5, 2)
    axis = costs(table(*rows, result("kd", provenance__device="gpu"), result("at") | known))
    assert "FLOPs of the forward passes" in axis.axis
    assert [(one.label, numbers(one.points)[0][0]) for one in axis.series] == [
        ("at", 2.0 * 14370),
        ("ce", 2.0 * 14370),
    ]


@pytest.mark.parametrize("seconds", [0.0, -1.0, "nan", "x", ""])
def test_a_cost_that_is_none(result, seconds):
    axis = costs(table(result("ce", seconds__train=seconds), result("kd")))
    assert [one.label for one in axis.series] == ["kd"]


def test_labels_tell_lines_apart(result):
    own = [result("kd", 0, run=f"k{t}", method__parameters=json.dumps({"KD.temperature": t})) for t in (2.0, 4.0)]
    taught = result("ce", 0, taught=True, run="t")
    names = labels(table(*own, result("ce"), taught).rows)
    assert sorted(names) == ["ce", "ce, teacher resnet20 (61.3)", "kd (temperature=2)", "kd (temperature=4)"]


def test_early_exits_are_a_point_a_confidence(result):
    measured = {
        "early_exit.flops.0.5": 1500.0, "early_exit.accuracy.0.5": 44.0,
        "early_exit.flops.0.99": 2900.0, "early_exit.accuracy.0.99": 49.0, "early_exit.flops.0.7": 2000.0,
    }  # fmt: skip
    (one,) = early_exits(table(result("byot", 0) | measured, result("ce")))
    assert one.label == "byot"
    assert [(p.name, p.x.mean, p.y.mean) for p in one.points] == [("0.5", 1500, 44), ("0.99", 2900, 49)]
