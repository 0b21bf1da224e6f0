import pytest

from kdbench.store.folder import CANCELLED, CHECKPOINT, EPOCHS, PROGRESS, RESULT, RESUME, RESUME_BEFORE, RunFolder


def test_the_files_say_the_state(tmp_path):
    folder = RunFolder(tmp_path, "a")
    assert folder.state() == "absent"
    folder.begin("Train.epochs = 1\n")
    assert folder.state() == "absent"
    folder.finish({"status": "failed", "error": "no"})
    assert folder.state() == "failed"
    folder.finish({"status": "finished"})
    assert folder.state() == "absent", "a result without its weights is not a finished run"
    (folder / CHECKPOINT).write_bytes(b"weights")
    assert folder.state() == "finished"


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"status": "fin', "\0\0"])
def test_a_result_that_cannot_be_read_counts_as_none(tmp_path, content):
    folder = RunFolder(tmp_path, "a")
    folder.begin("")
    (folder / CHECKPOINT).write_bytes(b"weights")
    (folder / RESULT).write_text(content)
    assert folder.result() is None
    assert folder.state() == "absent"


def names(folder):
    return sorted(p.name for p in folder.path.iterdir())


def test_a_new_attempt_begins_without_a_result_and_with_the_state_of_the_last_one(tmp_path):
    folder = RunFolder(tmp_path, "a")
    folder.begin("old")
    folder.finish({"status": "failed"})
    (folder / EPOCHS).write_text("epoch\n1\n")
    (folder / RESUME).write_text("state")
    folder.begin("new")
    assert names(folder) == ["config.gin", EPOCHS, RESUME]
    assert (folder / "config.gin").read_text() == "new"


def test_asked_for_afresh_a_run_begins_without_what_the_last_attempt_left(tmp_path):
    folder = RunFolder(tmp_path, "a")
    folder.begin("old")
    for name in (EPOCHS, RESUME, RESUME_BEFORE, CHECKPOINT):
        (folder / name).write_text("left")
    folder.finish({"status": "failed"})
    folder.enqueue({"id": "a"}, "fresh")
    assert folder.is_open()
    folder.begin("new")
    assert names(folder) == ["config.gin", "spec.json"]


def test_a_finished_run_needs_no_state(tmp_path):
    folder = RunFolder(tmp_path, "a")
    folder.begin("")
    for name in (RESUME, RESUME_BEFORE, PROGRESS, CHECKPOINT):
        (folder / name).write_text("left")
    folder.finish({"status": "finished"})
    assert names(folder) == [CHECKPOINT, "config.gin", "result.json"]


def test_what_is_open(tmp_path):
    folder = RunFolder(tmp_path, "a")
    folder.enqueue({"id": "a"})
    assert folder.is_open()
    folder.begin("")
    folder.finish({"status": "failed"})
    assert not folder.is_open()
    folder.enqueue({"id": "a"}, "resume")
    assert folder.is_open()
    (folder / CANCELLED).touch()
    assert not folder.is_open()
    folder.enqueue({"id": "a"})  # asking for it again takes the cancellation back
    assert folder.is_open()


def test_a_result_that_is_no_json_number_is_refused(tmp_path):
    folder = RunFolder(tmp_path, "a")
    folder.begin("")
    with pytest.raises(ValueError, match="JSON"):
        folder.finish({"accuracy.last": float("nan")})
    assert folder.result() is None
