"""The critical-difference diagram: which methods its bars join, and what it says."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from kdbench.report.plots import style
from kdbench.report.plots.critical import diagram, groups
from kdbench.report.tables.overall import aggregate
from kdbench.report.tables.tables import summarise

RANKS = st.lists(st.integers(4, 40).map(lambda quarter: quarter / 4), min_size=1, max_size=12).map(sorted)


@given(RANKS, st.integers(1, 20).map(lambda quarter: quarter / 4))
def test_bars_join_all_that_is_not_told_apart_and_nothing_else(ranks, difference):
    bars = groups(ranks, difference)
    covered = {pair for first, last in bars for pair in combinations(range(first, last + 1), 2)}
    assert covered == {(i, j) for i, j in combinations(range(len(ranks)), 2) if ranks[j] - ranks[i] < difference}
    assert not any(a != b and a[0] <= b[0] and b[1] <= a[1] for a in bars for b in bars), "each bar is needed"


def test_bars_by_hand():
    assert groups([1.0, 2.0, 2.5, 4.0], 1.5) == [(0, 1), (1, 2)]
    assert groups([1.0, 2.0, 2.5, 4.0], 1.6) == [(0, 2), (2, 3)]
    assert groups([1.0, 4.0], 2.0) == []


def made(result, **changes):
    means = {"a": {"ce": 50, "kd": 60, "at": 40}, "b": {"ce": 70, "kd": 75}, "c": {"ce": 80, "kd": 85}}
    rows = [
        result(method, seed, mean + seed / 10, dataset=dataset, run=f"{dataset}{method}{seed}", **changes)
        for dataset, methods in means.items()
        for method, mean in methods.items()
        for seed in range(2)
    ]
    return aggregate(summarise(rows))


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_the_diagram_says_what_it_shows(result):
    with style.settings():
        shown = texts(diagram(made(result)))
    about = "2 methods in 3 tables cannot differ significantly: the same order in all tables has p = 0.250 (exact)"
    assert f"2 methods, 3 tables · Friedman test: {about}" in shown
    assert "kd  1.00" in shown
    assert "2.00  ce" in shown
    everything = " ".join(" ".join(shown).split())
    assert "critical difference 1.13" in everything
    assert "Tables: a · cnn · 1f9c20; b · cnn · 1f9c20; c · cnn · 1f9c20." in everything
    assert "several teachers in one: at." in everything


def test_numbers_of_many_ranks_do_not_run_into_each_other(result):
    rows = [result(f"m{i:03}", 0, i / 10, dataset=d, run=f"{d}{i}") for d in "ab" for i in range(70)]
    with style.settings():
        figure = diagram(aggregate(summarise(rows)))
        figure.draw_without_rendering()
    numbers = [text.get_window_extent() for text in figure.axes[0].texts if text.get_text().isdigit()]
    assert len(numbers) == 24
    assert not any(a.overlaps(b) for a in numbers for b in numbers if a is not b)


def test_the_diagram_is_stamped_as_the_tables_are(result):
    with style.settings():
        shown = " ".join(texts(diagram(made(result, selected_on_test=True, control='{"budget": 3.0}'))))
    assert "TEST SET USED TO SELECT" in shown
    assert "kd (budget=3)" in shown
