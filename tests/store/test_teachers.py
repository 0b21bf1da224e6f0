import json

import pytest

from kdbench.errors import UserError
from kdbench.plan import expand, request
from kdbench.plan.spec import TeacherRun
from kdbench.store.folder import CHECKPOINT, RunFolder
from kdbench.store.teachers import finder

(SPEC,) = expand.plan(request.parse(["methods=byot", "dataset=digits", "student=resnet14"]))


@pytest.fixture
def runs(tmp_path):
    folder = RunFolder(tmp_path / "runs", SPEC.id)
    folder.begin(f"# {SPEC.command()}\n\n{SPEC.config}")
    (folder / CHECKPOINT).touch()
    folder.write("result.json", {**SPEC.identity(), "status": "finished"})
    return tmp_path / "runs"


def test_a_run_is_found_by_id_beginning_and_folder(runs, monkeypatch):
    run = TeacherRun(SPEC.id, "byot", "resnet14", "digits")
    find = finder(runs)
    assert find(SPEC.id) == find("byot-digits") == find("byot") == find(str(runs / SPEC.id)) == run
    elsewhere = finder(runs / "other")
    assert elsewhere(str(runs / SPEC.id)).folder == str(runs / SPEC.id)
    assert find("resnet21") is None, "not the beginning of an id; it may be a misspelt backbone"


def test_what_cannot_teach_is_refused(runs):
    find = finder(runs)
    with pytest.raises(UserError, match=f"starts with 'bjot-digits'; did you mean '{SPEC.id}'"):
        find("bjot-digits")
    with pytest.raises(UserError, match="is not a run folder"):
        find(f"{runs.parent}/")
    result = runs / SPEC.id / "result.json"
    result.write_text(json.dumps({**json.loads(result.read_text()), "status": "failed"}))
    with pytest.raises(UserError, match=f"the run {SPEC.id} cannot teach: it is failed"):
        find("byot")
    result.unlink()
    with pytest.raises(UserError, match="cannot teach: it is not finished"):
        find("byot")
