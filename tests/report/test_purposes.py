"""What runs were made for, of records that say it and of older ones that do not."""

from __future__ import annotations

import pytest

from kdbench.plan.spec import EQUAL_TEACHER_SEED
from kdbench.report.purposes import filled
from kdbench.report.records import LEADING, canonical, frame, from_csv, to_csv
from kdbench.report.tables.tables import summarise


def purposes(*results):
    rows = filled(frame(results))
    return dict(zip(rows["run"], rows["purpose"], strict=True))


@pytest.fixture
def kd(result):
    return [result("kd", seed, taught=True, teacher__run="big0") for seed in range(3)]


def big(result, seed=0, **changes):
    return result("ce", seed, student="resnet20", run=f"big{seed}", **changes)


def test_a_run_that_others_name_as_their_teacher_teaches(result, kd):
    assert purposes(*kd, big(result)) == {
        "kd0": "comparison",
        "kd1": "comparison",
        "kd2": "comparison",
        "big0": "teacher",
    }
    assert purposes(big(result)) == {"big0": "comparison"}, "nobody names it"


def test_one_that_has_further_seeds_is_compared(result, kd):
    every = purposes(*kd, *(big(result, seed, purpose="teacher" if seed == 0 else "comparison") for seed in range(3)))
    assert set(every.values()) == {"comparison"}
    stored = purposes(big(result, purpose="teacher"))
    assert stored == {"big0": "teacher"}, "also without its students"


def test_the_seed_of_equal_teachers_is_one_unless_it_was_asked_for(result):
    seed = EQUAL_TEACHER_SEED
    ce = [result("ce", s) for s in range(3)]
    assert purposes(*ce, result("ce", seed))[f"ce{seed}"] == "teacher"
    assert purposes(*ce, result("ce", seed, purpose="teacher"))[f"ce{seed}"] == "teacher"
    assert purposes(*ce, result("ce", seed, purpose="comparison"))[f"ce{seed}"] == "comparison"
    assert purposes(result("kd", seed, taught=True))[f"kd{seed}"] == "comparison"


def test_what_is_derived_and_stored_is_derived_again(result, kd):
    once = filled(frame([*kd, big(result), big(result, EQUAL_TEACHER_SEED)]))
    read, messages = from_csv(to_csv(once), "results.csv")
    assert messages == []
    assert filled(canonical(read)).equals(once)


def test_a_board_of_before_is_read(result, kd):
    rows = frame([*kd, big(result)])
    older = to_csv(rows.drop(columns="purpose"))
    read, messages = from_csv(older, "results.csv")
    assert messages == []
    again = filled(canonical(read))
    assert list(again.columns[: len(LEADING)]) == LEADING
    assert list(again["purpose"]) == ["comparison"] * 3 + ["teacher"]


def test_tables_of_teachers_come_last(result, kd):
    made = summarise([*kd, {**big(result), "dataset": "a", "run": "big0"}])
    assert [(table.dataset, table.is_of_teachers) for table in made] == [("digits", False), ("a", True)]
