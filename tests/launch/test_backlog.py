from pathlib import Path

import pytest

from kdbench.config import places
from kdbench.launch import backlog
from kdbench.plan import expand, request
from kdbench.store.folder import CHECKPOINT, RunFolder

TEACHER, FIRST, SECOND = expand.plan(request.parse(["methods=kd", "dataset=digits", "seeds=0,1"]))
PLAN = [TEACHER, FIRST, SECOND]


@pytest.fixture
def end(tmp_path):
    def end(spec, status):
        folder = RunFolder(tmp_path, spec.id)
        folder.begin(spec.config)
        (folder / CHECKPOINT).touch()
        folder.finish({**spec.identity(), "status": status})

    return end


def test_what_a_plan_does_with_each_run(tmp_path, end):
    end(TEACHER, "finished"), end(FIRST, "finished"), end(SECOND, "failed")
    planned = backlog.planned(PLAN, tmp_path)
    assert [(each.state, each.to_do) for each in planned] == [
        ("finished", False), ("finished", False), ("failed", True),
    ]  # fmt: skip
    assert [each.to_do for each in backlog.planned(PLAN, tmp_path, rerun=True)] == [False, True, True]
    assert backlog.open_runs(PLAN, tmp_path) == [SECOND]
    assert backlog.open_runs(PLAN, tmp_path, rerun=True) == [FIRST, SECOND]


def test_a_teacher_whose_students_are_finished_is_left_out(tmp_path, end):
    end(FIRST, "finished"), end(SECOND, "finished")
    assert backlog.open_runs(PLAN, tmp_path) == []


def test_of_a_chain_only_what_is_missing_above_the_student_is_done(tmp_path, end, own_plugins):
    places.add_plugins([str(Path(__file__).parents[1] / "teaching")])
    chain = expand.plan(request.parse(["methods=kd_chain", "dataset=digits", "teacher=resnet32", "student=resnet8"]))
    *_, second, student = chain
    assert backlog.open_runs(chain, tmp_path) == chain
    end(second, "finished")
    assert backlog.open_runs(chain, tmp_path) == [student], "what it is taught by is there"
    end(student, "finished")
    assert backlog.open_runs(chain, tmp_path) == []
    assert backlog.open_runs(chain, tmp_path, rerun=True) == [student]
