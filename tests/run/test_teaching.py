"""Runs of any method teach others: real runs on digits, a few steps each."""

import shutil

import pytest
import torch

from kdbench.backbones import registry
from kdbench.launch import display, local, worker
from kdbench.launch.backlog import enqueue, open_runs
from kdbench.launch.work import work
from kdbench.run import checkpoint
from kdbench.run import teacher as teacher_
from kdbench.run.caller import Caller
from kdbench.run.execute import run
from kdbench.run.resume import Stopped
from kdbench.store.folder import CANCELLED, CHECKPOINT, CONFIG, RunFolder


class Task:
    """What `teacher.load` reads of a task."""

    classes, image_shape = 10, (1, 8, 8)

    def __init__(self, result):
        self.digest = result["data.sha256"]


def test_a_chain_is_trained_from_the_teacher_to_the_student(taught):
    teacher, assistant, student = taught.do("methods=kd_chain")
    assert [r["student"] for r in (teacher, assistant, student)] == ["resnet20", "resnet14", "resnet8"]
    assert (assistant["teacher.run"], student["teacher.run"]) == (teacher["run"], assistant["run"])
    assert student["teacher.sha256"] == assistant["weights.sha256"]
    assert student["teacher.accuracy"] == pytest.approx(assistant["accuracy.last"])
    assert student["teacher"] == "resnet14 kd_chain"
    assert open_runs(taught.specs("methods=kd_chain"), taught.runs) == []


def test_several_teachers_teach_together_and_the_result_names_them_all(taught):
    teacher, assistant, student = taught.do("methods=dense")
    assert student["teacher.run"] == f"{teacher['run']},{assistant['run']}"
    assert student["teacher.sha256"] == f"{teacher['weights.sha256']},{assistant['weights.sha256']}"
    assert student["teacher.accuracy"] == pytest.approx(teacher["accuracy.last"])
    assert student["passes.teachers"] == 2 * student["images_seen"] == 2 * assistant["passes.teachers"]


def test_a_teacher_can_be_cut_short(taught):
    teacher, _ = taught.do("methods=kd_early")
    (whole,) = taught.do("methods=ce", "student=resnet20")
    assert 0 < teacher["images_seen"] <= whole["images_seen"] / 4 + 24


def test_states_along_a_training_are_teachers_from_the_earliest_to_the_end(taught):
    (plain,) = taught.do("methods=ce", "student=resnet20")
    teacher, student = taught.do("methods=route")
    assert teacher["weights.sha256"] == plain["weights.sha256"], "what a run keeps does not change its training"
    assert student["teacher.run"] == teacher["run"]
    loaded = teacher_.load(taught.specs("methods=route")[-1], taught.runs, Task(teacher))
    assert [each.is_earlier for each in loaded] == [True, True, False]
    assert len({each.sha256 for each in loaded}) == 3
    assert loaded[-1].sha256 == student["teacher.sha256"] == teacher["weights.sha256"]
    assert student["teacher.accuracy"] == pytest.approx(teacher["accuracy.last"])


def test_a_training_that_is_too_short_for_its_states_fails_at_once(taught):
    error = taught.failure("methods=ce_states", "Train.epochs=0.4")
    assert error == "a training of 1 steps is too short to keep 3 states of it"


def interrupted(spec, runs):
    """Do a run that is stopped after each of its steps; its result, and how often it was stopped."""
    stops = 0
    while True:
        try:
            return run(spec, runs, None, Caller(stop=lambda: True)), stops
        except Stopped:
            stops += 1


@pytest.mark.parametrize("method", ["ce_states", "dense", "route", "from_exits", "reuse"])
def test_a_run_that_is_interrupted_after_every_step_ends_in_the_same_bits(taught, tmp_path, method):
    undisturbed = taught.do(f"methods={method}")[-1]
    spec = taught.specs(f"methods={method}")[-1]
    for teacher in spec.teacher_runs:
        (tmp_path / teacher).symlink_to(taught.runs / teacher)
    result, stops = interrupted(spec, tmp_path)
    assert stops >= 5
    assert result["weights.sha256"] == undisturbed["weights.sha256"]
    ours, theirs = (
        [checkpoint.weights_sha256(s) for s in checkpoint.load(folder / spec.id / CHECKPOINT).get("states", ())]
        for folder in (tmp_path, taught.runs)
    )
    assert ours == theirs
    assert len(ours) == (2 if method == "ce_states" else 0)


def test_the_exits_that_a_teacher_was_trained_with_teach(taught, test_set):
    teacher, student = taught.do("methods=from_exits")
    assert teacher["method"] == "byot"
    (loaded,) = teacher_.load(taught.specs("methods=from_exits")[-1], taught.runs, Task(teacher))
    images, labels = test_set(taught.runs / student["run"])
    for name, logits in loaded.seen_by_methods().exits(images).items():
        accuracy = 100 * (logits.argmax(dim=1) == labels).float().mean().item()
        assert accuracy == pytest.approx(teacher[f"exits.{name}"], abs=0.5)
    assert student["passes.teachers"] == student["images_seen"]


def test_a_teacher_without_exits_says_so(taught):
    (teacher,) = taught.do("methods=ce", "student=resnet20")
    error = taught.failure("methods=from_exits", f"teacher={teacher['run']}")
    assert error.startswith("the teacher has no exits; pass teacher=RUN")


def test_a_finished_run_teaches_by_its_id_its_beginning_or_its_folder(taught, tmp_path):
    (teacher,) = taught.do("methods=byot", "student=resnet14")
    elsewhere = tmp_path / "elsewhere" / teacher["run"]
    shutil.copytree(taught.runs / teacher["run"], elsewhere)
    words = (teacher["run"], "byot-digits-resnet14", taught.runs / teacher["run"], elsewhere)
    planned = [taught.specs("methods=kd", f"teacher={word}") for word in words]
    assert len({spec.id for (spec,) in planned}) == 1
    assert [dict(spec.teacher_folders) for (spec,) in planned] == [{}, {}, {}, {teacher["run"]: str(elsewhere)}]
    (result,) = local.inline(planned[-1], tmp_path / "runs", None)
    assert (result["status"], result["teacher"]) == ("finished", "resnet14 byot")
    assert result["teacher.run"] == teacher["run"]
    assert f"teacher={elsewhere}" in result["provenance.command"]


def test_a_teacher_is_fed_images_in_its_own_normalisation(taught, test_set):
    other = ["Dataset.mean=(0.1,)", "Dataset.std=(0.5,)"]
    (teacher,) = taught.do("methods=ce", "student=resnet14", *other)
    (student,) = taught.do("methods=kd", f"teacher={teacher['run']}")
    assert teacher["protocol"] != student["protocol"]
    assert student["teacher.accuracy"] == pytest.approx(teacher["accuracy.last"])
    (spec,) = taught.specs("methods=kd", f"teacher={teacher['run']}")
    (loaded,) = teacher_.load(spec, taught.runs, Task(teacher))
    (own, _), (students, _) = (test_set(taught.runs / each["run"]) for each in (teacher, student))
    with torch.no_grad():
        logits = loaded.network(own)
        assert torch.allclose(loaded.logits(students), logits, atol=1e-4)
        assert not torch.allclose(loaded.network(students), logits, atol=1e-2)


def test_a_teacher_in_the_same_normalisation_is_fed_the_very_images(taught):
    (teacher,) = taught.do("methods=ce", "student=resnet20")
    (spec,) = taught.specs("methods=kd", f"teacher={teacher['run']}")
    (loaded,) = teacher_.load(spec, taught.runs, Task(teacher))
    assert (loaded.scale, loaded.shift) == (None, None)


def test_a_teacher_from_outside_that_is_near_chance_is_in_the_result_and_the_log(taught, tmp_path):
    torch.manual_seed(0)
    torch.save(registry.build("resnet8", 10, 1).state_dict(), tmp_path / "w.pt")
    (result,) = taught.do("methods=kd", f"teacher={tmp_path}/w.pt", "Train.epochs=1")
    assert result["teacher.doubt"].startswith("the teacher w.pt is right on ")
    assert "near chance (10.0 %)" in result["teacher.doubt"]
    assert result["teacher.doubt"] in (taught.runs / result["run"] / "log.txt").read_text()
    *_, trained = taught.do("methods=kd", "Train.epochs=1")
    assert "teacher.doubt" not in trained, "a teacher of the plan has its own row"


def test_students_of_a_cancelled_teacher_are_left_and_those_of_its_students_too(taught, tmp_path):
    teacher, assistant, student = planned = taught.specs("methods=kd_chain", runs=tmp_path)
    enqueue(planned, tmp_path)
    (RunFolder(tmp_path, teacher.id) / CANCELLED).touch()
    with worker.Stop() as stop:
        work([assistant, student], tmp_path, None, display.Plain(2), stop)
    assert not any((RunFolder(tmp_path, spec.id) / CONFIG).exists() for spec in planned)


def test_a_worker_that_is_given_the_student_alone_trains_all_above_it_first(taught, tmp_path):
    planned = taught.specs("methods=kd_chain", "Train.epochs=1", runs=tmp_path)
    enqueue(planned, tmp_path)
    with worker.Stop() as stop:
        work(planned[-1:], tmp_path, None, display.Plain(1), stop)
    assert [RunFolder(tmp_path, spec.id).state() for spec in planned] == ["finished"] * 3
