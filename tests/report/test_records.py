from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdbench.errors import UserError
from kdbench.report.records import LEADING, canonical, cell, frame, from_csv, is_number_column, merge, to_csv, write


def test_cells():
    assert cell(np.float64(0.1)) == "0.1"
    assert [cell(v) for v in ["a", None, True, 3, 0.1, 1e-9, [1], {"b": 1, "a": 2}]] == [
        *("a", "", "True", "3", "0.1", "1e-09", "[1]", '{"a": 2, "b": 1}'),
    ]


texts = st.text(max_size=12)
keys = texts.filter(lambda text: not is_number_column(text))  # those take only numbers: see the damages below
values = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), texts)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.dictionaries(keys, values, max_size=6), max_size=5), st.randoms(use_true_random=False))
def test_csv_gives_back_every_cell_whatever_the_order(further, rng):
    names = {"status": "failed", "method": "kd", "dataset": "d", "student": "s", "protocol": "p"}
    results = [{**extra, **names, "seed": i, "run": f"r{i}"} for i, extra in enumerate(further)]
    rows = frame(results)
    content = to_csv(rows)
    assert to_csv(frame(rng.sample(results, len(results)))) == content
    again, messages = from_csv(content, "results.csv")
    assert messages == []
    assert again.to_dict("records") == rows.to_dict("records")
    assert to_csv(canonical(again)) == content
    by_run = {row["run"]: row for row in again.to_dict("records")}  # rows are sorted by more than the seed
    assert len(by_run) == len(results)
    for one in results:
        row = by_run[one["run"]]
        assert {cell(k): cell(v) for k, v in one.items() if cell(v)} == {k: v for k, v in row.items() if v}


def test_numbers_come_back_to_the_last_digit(result):
    again, _ = from_csv(to_csv(frame([result(accuracy=61.1 / 3, images_seen=2**63)])), "")
    assert float(again["accuracy.last"][0]) == 61.1 / 3
    assert again["images_seen"][0] == str(2**63)


def test_columns_and_rows_have_one_order(result):
    rows = frame([result("kd", 10, zebra=1), result("kd", 9, apple=1), result("ce", 10)])
    assert list(rows.columns[: len(LEADING)]) == LEADING
    assert list(rows.columns[len(LEADING) :]) == sorted(rows.columns[len(LEADING) :])
    assert list(rows["run"]) == ["ce10", "kd9", "kd10"]


def test_folders_replace_committed_rows_and_other_rows_stay(result):
    committed = frame([result("ce", 0, 50.0), result("ce", 1, 51.0, old__key="x")])
    merged, messages = merge(committed, frame([result("ce", 1, 52.0), result("kd", 0, 60.0)]))
    assert dict(zip(merged["run"], merged["accuracy.last"], strict=True)) == {
        "ce0": "50.0",
        "ce1": "52.0",
        "kd0": "60.0",
    }
    assert "old.key" not in merged.columns
    assert messages == []


def test_a_run_of_this_machine_replaces_a_merged_one(result):
    committed = frame([result("ce", origin="b.zip 12345678", reproduced__status="confirmed"), result("kd")])
    merged, (message,) = merge(committed, frame([result("ce", 0, 51.0), result("kd")]))
    assert merged.equals(frame([result("ce", 0, 51.0), result("kd")]))
    assert message.startswith("run 'ce0' was merged from b.zip 12345678, and has been done on this machine now")


def test_transfer_that_is_committed_for_the_same_weights_stays(result):
    of = {"weights__sha256": "a" * 64}
    committed = frame(
        [
            result("ce", 0, transfer__stl10__knn=40.0, transfer__svhn__knn=30.0, **of),
            result("ce", 1, transfer__stl10__knn=41.0, **of),
            result("ce", 2, transfer__stl10__knn=42.0),
        ]
    )
    folders = [result("ce", 0, transfer__stl10__knn=39.0, **of), result("ce", 1, weights__sha256="b" * 64)]
    merged, _ = merge(committed, frame([*folders, result("ce", 2), result("ce", 3, **of)]))
    assert list(merged["transfer.stl10.knn"]) == ["39.0", "", "", ""]
    assert list(merged["transfer.svhn.knn"]) == ["30.0", "", "", ""]
    assert merge(committed, frame([result("ce", 1, **of)]))[0].equals(committed)


def test_a_finished_row_lost_to_a_failure_is_told(result):
    merged, (message,) = merge(frame([result("ce")]), frame([result("ce", status="failed", accuracy=None, error="no")]))
    assert list(merged["status"]) == ["failed"]
    assert "ce0" in message


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda text: "", "is empty"),
        (lambda text: "a,b\n1,2\n", "lacks the column"),
        (lambda text: text.replace("images_seen", "error", 1), "lacks the column"),
        (lambda text: "\n".join(line + ",x" for line in text.replace("data.sha256", "x").splitlines()), "twice"),
        (lambda text: "<<<<<<< HEAD\n" + text, "lacks the column"),
    ],
)
def test_a_file_without_columns_is_one_sentence(result, damage, word):
    text = damage(to_csv(frame([result("ce")])).decode())
    with pytest.raises(UserError, match=word) as caught:
        from_csv(text.encode(), "results.csv")
    assert "results.csv" in str(caught.value)


HEAD, FIRST, SECOND, THIRD = range(4)


@pytest.mark.parametrize(
    ("damage", "line", "word", "left"),
    [
        (lambda lines: [*lines, b"<<<<<<< HEAD"], 5, "1 cells", ["ce0", "ce1", "kd0"]),
        (lambda lines: [*lines, b'"open'], 5, "unexpected end", ["ce0", "ce1", "kd0"]),
        (lambda lines: [*lines, b"x," * 100], 5, "101 cells", ["ce0", "ce1", "kd0"]),
        (lambda lines: [*lines, lines[SECOND]], 5, "duplicates the run 'ce1' of line 3", ["ce0", "ce1", "kd0"]),
        (lambda lines: [*lines[:SECOND], lines[SECOND][:40], lines[THIRD]], 3, "cells", ["ce0", "kd0"]),
        (lambda lines: [*lines[:SECOND], b'a"b",\xff', *lines[SECOND:]], 3, "cells", ["ce0", "ce1", "kd0"]),
        (lambda lines: [*lines[:THIRD], lines[THIRD].replace(b",finished,", b",done,")], 4, "status is 'done'", 2),
        (lambda lines: [lines[HEAD], lines[FIRST].replace(b",50.0,", b",high,"), *lines[SECOND:]], 2, "'high'", 2),
        (lambda lines: [lines[HEAD], lines[FIRST].replace(b",50.0,", b",nan,"), *lines[SECOND:]], 2, "'nan'", 2),
        (
            lambda lines: [lines[HEAD], lines[FIRST].replace(b",ce0,", b",../ce0,"), *lines[SECOND:]],
            2,
            "cannot be the name of a run",
            2,
        ),
        (lambda lines: [lines[HEAD], lines[FIRST].replace(b"digits", b""), *lines[SECOND:]], 2, "no dataset", 2),
        (lambda lines: [lines[HEAD], lines[FIRST].replace(b"short", b"\xff"), *lines[SECOND:]], 2, "not UTF-8", 2),
        (lambda lines: [lines[HEAD], lines[FIRST].replace(b",0,ce0", b",x,ce0"), *lines[SECOND:]], 2, "seed is 'x'", 2),
    ],
)
def test_a_damaged_line_is_named_by_its_number_and_the_others_are_taken(result, damage, line, word, left):
    lines = to_csv(frame([result("ce", 0), result("ce", 1), result("kd", 0)])).splitlines()
    rows, (message,) = from_csv(b"\n".join(damage(lines)) + b"\n", "results.csv")
    assert message.startswith(f"results.csv, line {line} is not the result of a run: ")
    assert word in message
    assert len(rows) == left if isinstance(left, int) else list(rows["run"]) == left


def test_a_cell_of_several_lines_counts_as_the_lines_of_the_file(result):
    text = to_csv(frame([result("ce", error="one\ntwo\nthree"), result("kd")])) + b"mine\n"
    rows, (message,) = from_csv(text, "results.csv")
    assert list(rows["error"]) == ["one\ntwo\nthree", ""]
    assert "line 6 " in message


def test_a_long_cell_is_no_damage(result):
    rows, messages = from_csv(to_csv(frame([result("ce", error="x" * 300_000)])), "results.csv")
    assert (len(rows["error"][0]), messages) == (300_000, [])


def test_writing_leaves_nothing_beside_the_file(tmp_path):
    path = tmp_path / "new" / "file"
    assert write(path, b"one")
    assert not write(path, b"one")
    assert write(path, b"two")
    assert [p.name for p in path.parent.iterdir()] == ["file"]
    assert path.read_bytes() == b"two"


def test_a_write_that_fails_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write(path, b"one")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("no space")))
    with pytest.raises(OSError, match="no space"):
        write(path, b"two")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"one"
