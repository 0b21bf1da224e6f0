import pytest

from kdbench.errors import UserError
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


@pytest.mark.parametrize("name", ["../a", "a/b", "", ".", "..", "/etc", "a b", "a\n"])
def test_a_name_that_is_a_path_is_not_that_of_a_run(tmp_path, name):
    with pytest.raises(UserError, match="cannot be the name of a run"):
        RunFolder(tmp_path, name)


def test_a_link_out_of_the_folder_is_not_read(tmp_path):
    (tmp_path / "secret.json").write_text('{"status": "failed"}')
    folder = RunFolder(tmp_path / "runs", "a")
    folder.path.mkdir(parents=True)
    (folder / RESULT).symlink_to("../../secret.json")
    assert folder.result() is None
    assert folder.state() == "absent"
    with pytest.raises(UserError, match=r"result\.json is a link that leads out of the run's folder"):
        folder.check_links()


def test_an_attempt_writes_to_nothing_that_a_link_leads_to(tmp_path):
    mine = tmp_path / "mine"
    (mine / "methods").mkdir(parents=True)
    for name in ("log", "epochs", "methods/kd.py"):
        (mine / name).write_text("mine")
    folder = RunFolder(tmp_path / "runs", "a")
    folder.path.mkdir(parents=True)
    links = {"log.txt": "log", EPOCHS: "epochs", "config.gin": "log", "plugin": "", RESULT: "log", "again": "log"}
    for name, target in links.items():
        (folder / name).symlink_to(mine / target)
    folder.begin("Train.epochs = 1\n", {"methods/kd.py": mine / "methods/kd.py"})
    folder.log("a line")
    (folder / EPOCHS).write_text("epoch\n")
    folder.finish({"status": "failed"})
    assert {path.read_text() for path in mine.rglob("*") if path.is_file()} == {"mine"}
    assert (folder / "plugin/methods/kd.py").is_file()
