"""What the pictures of a table show and say, asked of matplotlib before anything is rendered."""

from __future__ import annotations

from itertools import pairwise

import pytest

from kdbench.report.plots import charts, series, style
from kdbench.report.plots.series import labels
from kdbench.report.tables.tables import summarise


@pytest.fixture(autouse=True)
def settings():
    with style.settings():
        yield


def drawn(kind, results):
    (table,) = summarise(results)
    styles = style.styles(labels(table.rows), "ce")
    by_kind = {
        "cost": lambda: charts.cost(table, series.costs(table), styles),
        "severity": lambda: charts.severity(table, series.severities(table), styles),
        "exits": lambda: charts.exits(table, series.exits(table, charts.DEPLOYED), styles),
        "early-exit": lambda: charts.early_exit(table, series.early_exits(table), styles),
    }
    return by_kind[kind]().axes[0]


def texts(axes):
    return [" ".join(text.get_text().split()) for text in axes.texts]


def costly(result, costs, seeds=2, **changes):
    return [
        result(method, seed, mean + seed / 10, seconds__train=cost, run=f"{method}{seed}", **changes)
        for method, (cost, mean) in costs.items()
        for seed in range(seeds)
    ]


def test_the_title_says_what_is_compared(result):
    shown = texts(drawn("cost", [*costly(result, {"ce": (1, 50)}), *costly(result, {"kd": (2, 60)}, seeds=3)]))
    assert shown[:2] == [
        "Accuracy against cost of training",
        "digits · cnn · recipe short · protocol 1f9c20 · n = 2 to 3 seeds",
    ]


def test_the_front_is_a_step_through_what_nothing_beats(result):
    axes = drawn("cost", costly(result, {"ce": (1, 50), "kd": (2, 60), "at": (3, 55), "rkd": (4, 70)}))
    (front,) = [line for line in axes.lines if line.get_drawstyle() == "steps-post"]
    assert list(front.get_xdata()) == [1, 2, 4, axes.get_xlim()[1]]
    assert list(front.get_ydata()) == pytest.approx([50.05, 60.05, 70.05, 70.05])
    assert texts(axes).count("at") == 1, "beside the axes"
    assert [texts(axes).count(name) for name in ("ce", "kd", "rkd")] == [2, 2, 2]


def test_labels_of_the_front_are_within_the_axes_and_apart(result):
    axes = drawn("cost", costly(result, {f"m{i}": (1 + i / 100, 50 + i / 100) for i in range(30)}))
    axes.figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts if text.get_zorder() == 9]
    assert boxes
    assert all(axes.bbox.x0 <= box.x0 and box.y1 <= axes.bbox.y1 for box in boxes)
    assert not any(a.overlaps(b) for a in boxes for b in boxes if a is not b)


def test_a_label_of_the_front_hides_no_point(result):
    """Above kd is the frame; below it on the right may be room."""
    places = {"ce": (1, 50), "kd": (10, 70), "rkd": (20, 52)}
    assert texts(drawn("cost", costly(result, places, seeds=1))).count("kd") == 2
    assert texts(drawn("cost", costly(result, places | {"at": (10.85, 69.2)}, seeds=1))).count("kd") == 1, (
        "beside the axes"
    )


@pytest.mark.parametrize(("dearest", "scale"), [(7.9, "linear"), (8.0, "log"), (8e6, "log")])
def test_costs_far_apart_have_a_logarithmic_axis(dearest, scale, result):
    axes = drawn("cost", costly(result, {"ce": (1, 50), "kd": (dearest, 60)}))
    assert axes.get_xscale() == scale
    assert axes.get_xlim()[0] < 1 < dearest < axes.get_xlim()[1]
    assert axes.get_xlabel() == "training time, seconds (cpu)"


def test_one_seed_has_no_interval_and_a_note(result):
    axes = drawn("cost", [*costly(result, {"ce": (1, 50), "kd": (2, 60)}), result("at", 0, 55.0)])
    assert [bar.has_yerr for bar in axes.containers] == [True, False, True]
    assert "n = 1, no interval: at." in texts(axes)[-1]


def test_intervals_that_are_cut_are_told(result):
    def note(scatter):
        rows = [result("ce", 0, 50.0 - scatter), result("ce", 1, 50.0 + scatter), result("kd", 0, 51.0)]
        return "Intervals that leave the plot" in texts(drawn("cost", rows))[-1]

    assert note(5)
    assert not note(0.01)


@pytest.mark.parametrize("methods", [22, 30])
def test_of_many_methods_the_legend_names_each(methods, result):
    names = {f"m{i}": (1 + i % 7, 50 + i) for i in range(methods - 1)} | {"ce": (1, 49)}
    axes = drawn("cost", costly(result, names, seeds=1))
    beside = {text.get_text(): text.xy[1] for text in axes.texts if text.xycoords == "axes fraction"}
    heights = sorted(beside[name] for name in names)
    inches = axes.bbox.height / axes.figure.dpi
    assert all((b - a) * inches * 72 > 8.5 for a, b in pairwise(heights)), "more than the font"
    assert ("share one" in texts(axes)[-1]) == (methods > 22)


def test_severities_have_their_names(result):
    levels = {f"robustness.severity.{s}": 50.0 - s for s in range(1, 6)}
    axes = drawn("severity", [result("ce", 0) | levels])
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["clean", "1", "2", "3", "4", "5"]
    assert "moved sideways" not in " ".join(texts(axes)), "one method's points stand where they are"
    axes = drawn("severity", [result("ce", 0) | levels, result("kd", 0) | levels])
    assert "shifted sideways" in " ".join(texts(axes))
    moves = [container.lines[0].get_xdata() for container in axes.containers]
    assert all(abs(x - i) < 0.5 for xs in moves for i, x in enumerate(xs)), (
        "nearer to their own severity than to another"
    )


def test_exits_have_their_names_above_and_the_deployed_network_a_ring(result):
    flops = {"cost.flops": 3e4, "cost.flops.exit1": 1e4, "exits.exit1": 40.0}
    axes = drawn("exits", [result("byot", 0) | flops])
    (above,) = axes.child_axes
    assert [tick.get_text() for tick in above.get_xticklabels()] == ["exit1", "deployed"]
    (ring,) = [line for line in axes.lines if line.get_fillstyle() == "none"]
    assert (list(ring.get_xdata()), list(ring.get_ydata())) == ([3e4], [50.0])
    assert "Ring: the deployed network." in texts(axes)[-1]


def test_controls_are_named(result):
    rows = costly(result, {"ce": (1, 50)}) + costly(result, {"kd": (2, 60)}, control='{"budget": 3.0}')
    assert "controls that change more than a method's own parameters: kd (budget=3)" in texts(drawn("cost", rows))[-1]


def test_early_exits_name_their_confidences(result):
    at = {f"early_exit.{kind}.{c}": c * scale for c in (0.5, 0.9) for kind, scale in (("flops", 3e4), ("accuracy", 50))}
    axes = drawn("early-exit", [result("byot", seed) | at for seed in range(2)])
    (line, *_) = axes.get_lines()
    assert list(line.get_xdata()) == [1.5e4, 2.7e4]
    assert list(line.get_ydata()) == [25, 45]
    assert "at least 0.5, 0.9." in texts(axes)[-1]
