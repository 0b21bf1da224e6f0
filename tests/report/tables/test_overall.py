from __future__ import annotations

import re

import pytest

from kdbench.report.formats.markdown import markdown_section
from kdbench.report.stats.across import Friedman
from kdbench.report.tables.overall import aggregate, section, verdict
from kdbench.report.tables.tables import summarise

SEEDS = (0, 1, 2)


def rows(result, dataset, seeds=SEEDS, **means):
    return [
        result(method, seed, mean + (seed * 7 + i) % 3 / 10, dataset=dataset, run=f"{dataset}{method}{seed}")
        for i, (method, mean) in enumerate(means.items())
        for seed in seeds
    ]


@pytest.fixture
def made(result):
    """Three datasets: kd is ahead of ce on two of them, at is on one only."""
    first = rows(result, "a", ce=50, kd=60, rkd=40)
    second = rows(result, "b", ce=70, kd=75, rkd=60, at=80)
    return [*first, *second, *rows(result, "c", ce=90, kd=85, rkd=80)]


def test_an_overview_by_hand(made):
    over = aggregate(summarise(made))
    assert [(s.method, s.rank) for s in over.standings] == [
        ("kd", pytest.approx(4 / 3)), ("ce", pytest.approx(5 / 3)), ("rkd", 3.0),
    ]  # fmt: skip
    assert [s.improvement for s in over.standings] == [(pytest.approx(2 / 3),) * 3, None, (0.0, 0.0, 0.0)]
    assert over.critical_difference == pytest.approx(2.343 * (12 / 18) ** 0.5, abs=2e-3)
    # χ² = 12·3/12 · (16/9 + 25/9 + 9 - 12) = 14/3, F = 2 · 14/3 / (6 - 14/3) = 7
    assert (over.test.chi2, over.test.f) == (pytest.approx(14 / 3), pytest.approx(7.0))
    assert over.left_out == ["at"]
    text = markdown_section(section(over))
    assert re.search(r"\| kd +\| +1\.33 \| +0\.67 \|", text), "no interval of width zero"
    assert "no interval for P(better than ce) where the runs of a table do not overlap" in text
    assert (
        "critical difference 1.91 (Nemenyi, 95 %) is not used, because the Friedman test does not show that any method differs"
        in text
    )
    assert "χ² = 4.67, p = 0.194 (exact): no significant difference between the methods" in text, (
        "F alone has p = 0.049"
    )


def test_ranks_are_told_apart_where_the_test_shows_a_difference(result, made):
    over = aggregate(summarise([row for name in "abcd" for row in rows(result, name, ce=50, kd=60, rkd=40)]))
    text = markdown_section(section(over))
    assert "the same order in all tables, χ² = 8.00, p = 0.005 (exact): at least two methods differ" in text
    assert (
        "critical difference 1.66 (Nemenyi, 95 %): average ranks that differ by less are statistically indistinguishable"
        in text
    )
    assert over.separating_difference == over.critical_difference


@pytest.mark.parametrize(("tables", "shows"), [(2, False), (5, False), (6, True)])
def test_two_methods_differ_in_six_tables_at_the_least(result, tables, shows):
    over = aggregate(summarise([row for name in "abcdef"[:tables] for row in rows(result, name, ce=50, kd=60)]))
    text = markdown_section(section(over))
    assert ("at least two methods differ" in text) is shows
    sentence = f"2 methods in {tables} tables cannot differ significantly: the same order in all tables has p = "
    assert (sentence in text) is not shows
    assert (over.separating_difference < 1) is shows


def test_a_small_p_is_not_zero():
    def sentence(p):
        return verdict(Friedman(9.0, 99.0, (2, 4), p, exact=False, least_p=1e-6))

    assert sentence(4e-4) == "Friedman test: F(2, 4) = 99.00, p < 0.001: at least two methods differ"
    assert "p = 0.001: " in sentence(5e-4)


def test_the_largest_block_without_a_gap_is_taken(result, made):
    over = aggregate(summarise([*made, *rows(result, "d", ce=50, at=60)]))
    assert ([t.dataset for t in over.tables], len(over.standings)) == (["a", "b", "c"], 3)


def test_nothing_shared_is_no_overview(result):
    assert aggregate([]) is None
    assert aggregate(summarise(rows(result, "a", ce=50, kd=60))) is None
    assert aggregate(summarise(rows(result, "a", ce=50, kd=60) + rows(result, "b", ce=50, at=60))) is None


def test_few_tables_and_single_seeds_say_so(result):
    over = aggregate(summarise(rows(result, "a", (0,), ce=50, kd=60) + rows(result, "b", ce=50, kd=60)))
    text = markdown_section(section(over))
    assert "average ranks over 2 tables cannot differ by more than 1, so no two methods differ significantly" in text
    assert "n = 1 in some table: no interval can be given (ce, kd)" in text
    assert "the same order in all tables" in text
    assert "1.00 (" not in text, "no interval beside the probability"


def test_a_method_with_two_teachers_in_a_table_is_left_out(result, made):
    extra = [result("kd", seed, 61.0, dataset="a", taught=True, run=f"x{seed}") for seed in SEEDS]
    over = aggregate(summarise([*made, *extra]))
    assert [s.method for s in over.standings] == ["ce", "rkd"], "three tables of two rather than two tables of three"
    assert over.left_out == ["at", "kd"]


def test_controls_are_named_here_too(result, made):
    changed = [{**row, "control": '{"budget": 3.0}'} if row["method"] == "kd" else row for row in made]
    text = markdown_section(section(aggregate(summarise(changed))))
    assert "controls that change more than a method's own parameters: kd (budget=3)" in text


def test_without_the_baseline_there_is_no_improvement(result):
    over = aggregate(summarise(rows(result, "a", at=50, kd=60) + rows(result, "b", at=50, kd=60)))
    assert [s.improvement for s in over.standings] == [None, None]
