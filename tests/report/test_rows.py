from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdbench.errors import UserError
from kdbench.report.rows import LEADING, canonical, cell, frame, from_csv, merge, read_runs, to_csv, write


def test_what_is_read_is_what_was_stored(result, store):
    stored = [result("kd", seed, 61.0 + seed / 3, taught=True, new__key=[1, {"a": None}]) for seed in range(3)]
    results, messages = read_runs(store(*stored))
    assert results == stored
    assert messages == []


def test_no_folder_has_no_runs(tmp_path):
    assert read_runs(tmp_path / "nowhere") == ([], [])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"run": "x", "sta', "cannot be read"),
        (b"", "cannot be read"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
        (b"[1, 2]", "not a JSON object"),
        (b'{"accuracy": 61.0}', "lacks run, method"),
        (b"null", "not a JSON object"),
    ],
)
def test_damaged_and_foreign_files_are_named_and_skipped(result, store, content, reason):
    runs = store(result("ce"), result("kd"))
    (runs / "kd0" / "result.json").write_bytes(content)
    results, messages = read_runs(runs)
    assert [r["run"] for r in results] == ["ce0"]
    (message,) = messages
    assert "kd0" in message
    assert reason in message


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"status": "running"}, "status"),
        ({"seed": "0"}, "lacks seed"),
        ({"seed": True}, "lacks seed"),
        ({"protocol": None}, "lacks protocol"),
    ],
)
def test_results_that_are_none_are_named_and_skipped(result, store, change, reason):
    results, (message,) = read_runs(store(result(**change)))
    assert results == []
    assert reason in message


def test_a_copied_folder_does_not_count_twice(result, store):
    runs = store(result("ce"))
    (runs / "copy").mkdir()
    (runs / "copy" / "result.json").write_text((runs / "ce0" / "result.json").read_text())
    results, (message,) = read_runs(runs)
    assert len(results) == 1
    assert "copy" in message


def test_runs_that_have_not_ended_and_loose_files_are_no_news(result, store):
    runs = store(result("ce"))
    (runs / "going").mkdir()
    (runs / "note.txt").write_text("mine")
    results, messages = read_runs(runs)
    assert len(results) == 1
    assert messages == []


def test_cells():
    assert cell(np.float64(0.1)) == "0.1"
    assert [cell(v) for v in ["a", None, True, 3, 0.1, 1e-9, [1], {"b": 1, "a": 2}]] == [
        *("a", "", "True", "3", "0.1", "1e-09", "[1]", '{"a": 2, "b": 1}'),
    ]


texts = st.text(max_size=12)
values = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), texts)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.dictionaries(texts, values, max_size=6), max_size=5), st.randoms(use_true_random=False))
def test_csv_gives_back_every_cell_whatever_the_order(further, rng):
    names = {"status": "failed", "method": "kd", "dataset": "d", "student": "s", "protocol": "p"}
    results = [{**extra, **names, "seed": i, "run": f"r{i}"} for i, extra in enumerate(further)]
    rows = frame(results)
    content = to_csv(rows)
    assert to_csv(frame(rng.sample(results, len(results)))) == content
    again = from_csv(content, "results.csv")
    assert again.to_dict("records") == rows.to_dict("records")
    assert to_csv(canonical(again)) == content
    by_run = {row["run"]: row for row in again.to_dict("records")}  # rows are sorted by more than the seed
    assert len(by_run) == len(results)
    for one in results:
        row = by_run[one["run"]]
        assert {cell(k): cell(v) for k, v in one.items() if cell(v)} == {k: v for k, v in row.items() if v}


def test_numbers_come_back_to_the_last_digit(result):
    again = from_csv(to_csv(frame([result(accuracy=61.1 / 3, images_seen=2**63)])), "")
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


def test_a_finished_row_lost_to_a_failure_is_told(result):
    merged, (message,) = merge(frame([result("ce")]), frame([result("ce", status="failed", accuracy=None, error="no")]))
    assert list(merged["status"]) == ["failed"]
    assert "ce0" in message


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda text: "", "not a CSV"),
        (lambda text: "a,b\n1,2\n", "lacks the column"),
        (lambda text: text + "<<<<<<< HEAD\n", "no run"),
        (lambda text: text + '"open', "not a CSV"),
        (lambda text: text + "x," * 100 + "\n", "not a CSV"),
        (lambda text: text + text.splitlines()[1] + "\n", "twice"),
        (lambda text: text.replace(",finished,", ",done,"), "no run"),
        (lambda text: text.replace("images_seen", "error", 1), "lacks the column"),
        (lambda text: "\n".join(line + ",x" for line in text.replace("data.sha256", "x").splitlines()), "twice"),
    ],
)
def test_a_damaged_csv_is_one_sentence(result, damage, word):
    text = damage(to_csv(frame([result("ce")])).decode())
    with pytest.raises(UserError, match=word) as caught:
        from_csv(text.encode(), "results.csv")
    assert "results.csv" in str(caught.value)


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
