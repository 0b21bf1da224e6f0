"""Rows with runs of somebody else: which count, and how they are marked."""

import pytest

from kdbench.report.formats.latex import latex
from kdbench.report.formats.markdown import markdown
from kdbench.report.tables.origins import CONFIRMED, CONTRADICTED, UNCONFIRMED
from kdbench.report.tables.tables import summarise

THEIRS = {"origin": "b.zip 12345678"}


def outcome(status, difference=0.0, identical=False):
    return THEIRS | {
        "reproduced__status": status, "reproduced__difference": difference, "reproduced__identical": identical,
        "reproduced__at": "2026-11-27T12:00:00+00:00",
    }  # fmt: skip


def row_of(method, *results):
    (table,) = summarise(results)
    (row,) = (row for row in table.rows if row.runs[0]["method"] == method)
    return row, table


@pytest.mark.parametrize(
    ("changes", "sign", "note"),
    [
        ({}, "", None),
        (THEIRS, UNCONFIRMED, "not confirmed on this machine: kd, seed 1, from b.zip 12345678; to confirm one: kdbench"),
        (outcome("confirmed", identical=True), CONFIRMED, "seed 1, from b.zip 12345678 (bit-identical weights, 2026-11-27)"),
        (outcome("confirmed", 0.25), CONFIRMED, "(61.00 % there, 61.25 % here, 2026-11-27)"),
        (outcome("contradicted", -9.0), CONTRADICTED, "not counted: kd, seed 1, from b.zip 12345678 (61.00 % there, 52.00"),
    ],
)  # fmt: skip
def test_marks_and_notes(result, changes, sign, note):
    row, table = row_of("kd", result("ce"), result("kd", 0, 60.0), result("kd", 1, 61.0, **changes))
    assert row.marks == sign
    assert not note or any(text.startswith(sign) and note in text for text in table.notes)
    assert f"kd {sign}" in markdown(table)
    assert not sign or f"- {sign} done elsewhere" in markdown(table)
    assert latex(table).isascii() or not sign, "LaTeX's own fonts have no such signs"


def test_seeds_of_several_machines_are_one_row_paired_by_seed(result):
    row, _ = row_of(
        "kd", *[result("ce", seed, 50.0) for seed in (0, 1)],
        result("kd", 0, 60.0), result("kd", 1, 62.0, **THEIRS), result("kd", 2, 99.0, **THEIRS),
    )  # fmt: skip
    assert (row.accuracy.n, row.difference.n, row.difference.mean) == (3, 2, 11.0)


def test_another_teacher_is_another_row(result):
    theirs = THEIRS | {"teacher__sha256": "e" * 64}
    (table,) = summarise([result("kd", 0, taught=True), result("kd", 1, taught=True, **theirs)])
    assert [len(row.runs) for row in table.rows] == [1, 1]


def test_a_run_of_this_machine_counts_before_a_newer_one_of_the_same_seed(result):
    mine = result("kd", 0, 60.0, provenance__finished_at="2026-01-01T00:00:00+00:00")
    theirs = result("kd", 0, 99.0, run="other", provenance__finished_at="2026-02-01T00:00:00+00:00", **THEIRS)
    row, table = row_of("kd", mine, theirs)
    assert (row.accuracy.mean, row.marks) == (60.0, "")
    assert "kd: excluded, because another run of the same seed counts: other" in table.notes


def test_a_contradicted_run_does_not_count(result):
    row, table = row_of("kd", result("kd", 0, 60.0), result("kd", 1, 99.0, **outcome("contradicted", -39.0)))
    assert (row.accuracy.n, row.accuracy.mean) == (1, 60.0)
    assert "1, 1 contradicted" in markdown(table)
    assert not any(note.startswith("failed") for note in table.notes)
    alone, _ = row_of("kd", result("kd", 1, 99.0, **outcome("contradicted", -39.0)))
    assert (alone.accuracy, alone.marks) == (None, CONTRADICTED)
