"""transfer.json: what is read back, and what does not count."""

import json

import pytest

from kdbench.report import folders
from kdbench.store import transfer
from kdbench.store.folder import RunFolder

ENTRY = {"linear": 51.5, "knn": 40, "penalty": 0.1}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "run").mkdir()
    return RunFolder(tmp_path, "run")


def test_what_is_written_is_read_for_the_same_weights_alone(folder):
    transfer.write(folder, "abc", {"stl10": ENTRY, "digits": ENTRY})
    assert transfer.read(folder, "abc") == {"digits": ENTRY, "stl10": ENTRY}
    assert transfer.read(folder, "other") == transfer.read(folder, None) == {}
    finished = {"status": "finished", "weights.sha256": "abc"}
    assert transfer.keys(folder, finished) == {
        "transfer.digits.linear": 51.5, "transfer.digits.knn": 40,
        "transfer.stl10.linear": 51.5, "transfer.stl10.knn": 40,
    }  # fmt: skip
    assert transfer.keys(folder, {**finished, "status": "failed"}) == {}


@pytest.mark.parametrize(
    "entry", [3, {}, {"linear": 1}, {"linear": 101, "knn": 1}, {"linear": True, "knn": 1}, {"linear": "1", "knn": 1}]
)
def test_entries_that_kdbench_cannot_have_written_are_left_out(folder, entry):
    content = {"version": 1, "weights.sha256": "abc", "datasets": {"digits": entry, "stl10": ENTRY, "a.b": ENTRY}}
    (folder / "transfer.json").write_text(json.dumps(content))
    assert transfer.read(folder, "abc") == {"stl10": ENTRY}


@pytest.mark.parametrize("text", ["", "[]", '{"version": 1, "weights.sha256": "abc", "datasets": 3}', '{"version": 0}'])
def test_a_damaged_file_is_as_none(folder, text):
    (folder / "transfer.json").write_text(text)
    assert transfer.read(folder, "abc") == {}


def test_a_new_attempt_removes_it(folder):
    transfer.write(folder, "abc", {"stl10": ENTRY})
    folder.begin("")
    assert not (folder / "transfer.json").exists()


def test_results_of_folders_have_it_and_are_read_again_when_it_changes(folder, tmp_path):
    identity = {name: "x" for name in ("method", "dataset", "student", "protocol")}
    folder.write("result.json", {**identity, "run": "run", "seed": 0, "status": "finished", "weights.sha256": "abc"})
    before = folders.read_runs(tmp_path)
    transfer.write(folder, "abc", {"digits": ENTRY})
    (result,) = folders.read_runs(tmp_path, before.stamps).results
    assert result["transfer.digits.linear"] == 51.5
    assert folders.read_runs(tmp_path, folders.read_runs(tmp_path).stamps).results == []
