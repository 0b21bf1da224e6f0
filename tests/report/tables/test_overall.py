from __future__ import annotations

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
    assert "| kd       |           1.33 | 0.67 (0.67 to 0.67) |" in text
    assert (
        "critical difference 1.91 (Nemenyi, 95 %): average ranks that differ by less are statistically indistinguishable"
        in text
    )
    assert "F(2, 4) = 7.00, p = 0.049: the methods differ" in text


def test_a_small_p_is_not_zero():
    assert verdict(Friedman(9.0, 99.0, (2, 4), 4e-4)) == "Friedman test: F(2, 4) = 99.00, p < 0.001: the methods differ"
    assert "p = 0.001: " in verdict(Friedman(9.0, 99.0, (2, 4), 5e-4))


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
