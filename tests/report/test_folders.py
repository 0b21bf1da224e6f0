"""Run folders: what is taken, what is named, what is read again."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from kdbench.report import folders
from kdbench.report.folders import INDEX, read_runs, remember, unchanged


def test_what_is_read_is_what_was_stored(result, store):
    stored = [result("kd", seed, 61.0 + seed / 3, taught=True, new__key=[1, {"a": None}]) for seed in range(3)]
    reading = read_runs(store(*stored))
    assert reading.results == stored
    assert reading.messages == []
    assert sorted(reading.stamps) == ["kd0", "kd1", "kd2"]


def test_no_folder_has_no_runs(tmp_path):
    assert read_runs(tmp_path / "nowhere") == folders.Reading()


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
        (b'{"accuracy.last": NaN}', "NaN is not a number"),
    ],
)
def test_damaged_and_foreign_files_are_named_and_skipped(result, store, content, reason):
    runs = store(result("ce"), result("kd"))
    (runs / "kd0" / "result.json").write_bytes(content)
    reading = read_runs(runs)
    assert [r["run"] for r in reading.results] == ["ce0"]
    assert list(reading.stamps) == ["ce0"]
    (message,) = reading.messages
    assert "kd0" in message
    assert reason in message


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"status": "running"}, "its status is 'running'"),
        ({"seed": "0"}, "lacks seed"),
        ({"seed": True}, "lacks seed"),
        ({"protocol": None}, "lacks protocol"),
        ({"accuracy": "high"}, "its accuracy.last is 'high', which is not a number"),
        ({"accuracy": True}, "its accuracy.last is True"),
        ({"accuracy": [61.0]}, "its accuracy.last is [61.0]"),
        ({"accuracy": 1e400}, "cannot be read"),
        ({"exits__exit1": "61"}, "its exits.exit1 is '61'"),
        ({"images_seen": {}}, "its images_seen is {}"),
    ],
)
def test_results_that_are_none_are_named_and_skipped(result, store, change, reason):
    reading = read_runs(store(result(**change)))
    assert reading.results == []
    assert reason in reading.messages[0]


def test_a_number_too_large_for_one_is_none(result, store):
    runs = store(result("ce"))
    path = runs / "ce0" / "result.json"
    path.write_text(path.read_text().replace("50.0", "1e999"))
    assert "its accuracy.last is inf" in read_runs(runs).messages[0]


def test_a_copied_folder_does_not_count_twice(result, store):
    runs = store(result("ce"))
    shutil.copytree(runs / "ce0", runs / "copy")
    reading = read_runs(runs)
    assert len(reading.results) == 1
    assert "it is the result of run 'ce0', not of this folder's" in reading.messages[0]


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: os.mkfifo(path)])
def test_what_is_called_like_a_result_and_is_no_file_is_named(result, store, make):
    runs = store(result("ce"))
    (runs / "odd").mkdir()
    make(runs / "odd" / "result.json")
    reading = read_runs(runs)
    assert len(reading.results) == 1
    assert reading.messages == [f"{runs}/odd/result.json was skipped: it is not a file"]


def test_a_file_that_may_not_be_read_is_named(result, store, monkeypatch):
    runs = store(result("ce"), result("kd"))
    parsed = folders._parsed

    def refused(path):
        if "kd0" in path:
            raise PermissionError(13, "Permission denied")
        return parsed(path)

    monkeypatch.setattr(folders, "_parsed", refused)
    reading = read_runs(runs)
    assert len(reading.results) == 1
    assert "PermissionError" in reading.messages[0]


def test_runs_that_have_not_ended_are_counted_and_loose_files_are_no_news(result, store):
    runs = store(result("ce"))
    for name, file in (("going", "spec.json"), ("begun", "config.gin"), ("tuning", "study.json")):
        (runs / name).mkdir()
        (runs / name / file).write_text("x")
    (runs / "note.txt").write_text("mine")
    reading = read_runs(runs)
    assert (len(reading.results), reading.messages, reading.open) == (1, [], 2)


def touch(path):
    """Another stamp, whatever the clock's resolution."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


def test_what_is_known_is_read_again_only_if_its_file_is_another(result, store):
    runs = store(result("ce"), result("kd"))
    stamps = read_runs(runs).stamps
    again = read_runs(runs, stamps)
    assert (again.results, again.stamps) == ([], stamps)
    touch(runs / "kd0" / "result.json")
    assert [r["run"] for r in read_runs(runs, stamps).results] == ["kd0"]
    shutil.rmtree(runs / "ce0")
    assert list(read_runs(runs, stamps).stamps) == ["kd0"]


def test_a_known_file_that_is_damaged_now_is_named(result, store):
    runs = store(result("ce"))
    stamps = read_runs(runs).stamps
    (runs / "ce0" / "result.json").write_text("{")
    reading = read_runs(runs, stamps)
    assert (reading.stamps, len(reading.messages)) == ({}, 1)


def test_the_index_is_for_one_board(result, store):
    runs = store(result("ce"))
    stamps = read_runs(runs).stamps
    remember(runs, b"rows", stamps)
    assert unchanged(runs, b"rows") == stamps
    assert unchanged(runs, b"other rows") == {}


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"rows": 1}', '{"rows": "RIGHT", "runs": 3}'])
def test_a_damaged_index_is_none(result, store, content):
    runs = store(result("ce"))
    remember(runs, b"rows", read_runs(runs).stamps)
    right = json.loads((runs / INDEX).read_text())["rows"]
    (runs / INDEX).write_text(content.replace("RIGHT", right))
    assert unchanged(runs, b"rows") == {}


def test_where_no_index_can_be_written_there_is_none(result, store, tmp_path):
    remember(tmp_path / "nowhere", b"rows", {})
    assert not (tmp_path / "nowhere").exists()
    runs = store(result("ce"))
    (runs / INDEX).mkdir()
    remember(runs, b"rows", read_runs(runs).stamps)
    assert unchanged(runs, b"rows") == {}
