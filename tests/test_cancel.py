from kdbench import launch, plan
from kdbench.store import CANCELLED, RunFolder


def test_a_teacher_that_finished_just_as_it_was_cancelled_teaches(tmp_path):
    words = ["methods=kd", "dataset=digits", "Train.epochs=1", "Train.warmup=0"]
    teacher, student = plan.plan(plan.parse(words))
    launch.inline([teacher], tmp_path, None)
    (RunFolder(tmp_path, teacher.id) / CANCELLED).touch()
    (result,) = launch.inline([student], tmp_path, None)
    assert result["status"] == "finished"
