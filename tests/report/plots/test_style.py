"""How pictures look: what tells methods apart in grey, and where labels go."""

from __future__ import annotations

from itertools import combinations, pairwise

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from kdbench.report.plots import style as style_
from kdbench.report.stats.intervals import Interval


def test_styles_differ_without_colour():
    by_label = style_.styles([f"m{i}" for i in range(109)], "ce")
    assert len({(style.marker, style.filled, str(style.dashes)) for style in by_label.values()}) == 110
    first = list(by_label.values())[:22]
    assert len({(style.marker, style.filled) for style in first}) == 22, "points alone have no dashes"


@pytest.mark.parametrize(("methods", "size", "line"), [(40, 5.5, True), (22, 6.5, False)])
def test_a_grey_print_tells_methods_apart(methods, size, line):
    """Legend entries, and points alone, with all ink of the same darkness: shapes alone count."""
    shapes = []
    for style in style_.styles([f"m{i}" for i in range(methods - 1)], "ce").values():
        figure = Figure(figsize=(0.6, 0.2), dpi=150)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.plot([0, 1, 2], [0] * 3, linestyle=style.dashes if line else "", markevery=[1], **style.kwargs(size))
        drawn = FigureCanvasAgg(figure)
        drawn.draw()
        grey = np.asarray(drawn.buffer_rgba())[..., :3].astype(float).mean(axis=-1)
        shapes.append(grey < (255 + grey.min()) / 2)
    assert min((a != b).sum() for a, b in combinations(shapes, 2)) >= 25


def test_what_is_in_most_tables_has_the_first_colours():
    shared = [f"z{i}" for i in range(7)]
    by_label = style_.styles([*(f"a{i}" for i in range(30)), *shared, *shared], "ce")
    assert len({by_label[name].colour for name in [*shared, "ce"]}) == 8


def test_styles_do_not_depend_on_order():
    names = [f"m{i}" for i in range(20)]
    assert style_.styles(names, "ce") == style_.styles(reversed(names), "ce")


@pytest.mark.parametrize("colour", style_.COLOURS)
def test_every_colour_is_seen_on_white(colour):
    """The grey value; 1 is white."""
    red, green, blue = matplotlib.colors.to_rgb(colour)
    assert 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.75


@given(st.lists(st.floats(-2, 3), min_size=1, max_size=20), st.floats(0.001, 0.05))
def test_labels_do_not_touch_and_stay_on_the_picture(wanted, step):
    heights = style_.apart(sorted(wanted, reverse=True), step)
    assert len(heights) == len(wanted)
    assert all(a - b >= step - 1e-9 for a, b in pairwise(heights))
    assert all(-1e-9 <= place <= 1 + 1e-9 for place in heights)


def test_labels_that_have_room_stay_where_they_belong():
    assert style_.apart([0.9, 0.5, 0.1], 0.1) == [0.9, 0.5, 0.1]
    assert style_.apart([0.5, 0.5], 0.1) == pytest.approx([0.55, 0.45])


@given(st.lists(st.tuples(st.floats(0, 100), st.none() | st.floats(0, 1e6)), min_size=1, max_size=9))
def test_all_means_are_in_sight(values):
    low, high = style_.view([Interval(3, mean, half) for mean, half in values])
    assert all(low < mean < high for mean, _ in values)
    assert (low, high) >= (-1.0, -1.0)
    assert high <= 101.0


def test_plain_text_of_any_name():
    assert style_.plain(" a\n b\t$x^2$ ") == "a b $x^2$"
    assert style_.plain("a\0b\x1b\ud800\u202e") == "a\ufffdb" + 3 * "\ufffd"
    long = style_.plain("kd (" + "a" * 500 + "temperature=2.0)")
    assert (len(long), long[:4], long[-16:]) == (64, "kd (", "temperature=2.0)")
    assert style_.plain("é" * 64) == "é" * 64


def test_long_names_that_differ_in_their_middle_stay_apart():
    long = [f"kd ({'a=1, ' * 10}b={i}, {'c=1, ' * 10}d=2)" for i in range(2)]
    shown = style_.short(["ce", *long])
    assert shown["ce"] == "ce"
    assert shown[long[0]] != shown[long[1]]
    assert len(style_.short(long[:1])[long[0]]) == 64


def test_the_users_matplotlibrc_plays_no_part():
    before = matplotlib.rcParams["font.size"]
    with matplotlib.rc_context({"font.size": 33, "text.usetex": True}):
        with style_.settings():
            assert (matplotlib.rcParams["font.size"], matplotlib.rcParams["text.usetex"]) == (9, False)
        assert matplotlib.rcParams["font.size"] == 33
    assert matplotlib.rcParams["font.size"] == before
