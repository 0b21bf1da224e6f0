"""States of runs, from real folders and leases; SLURM's queue is given here; tests/launch/slurm asks a real one."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kdbench.config import places
from kdbench.launch import status as status_
from kdbench.launch.slurm.queue import QueuedJob, SlurmQueue
from kdbench.plan import expand, request
from kdbench.store import lease
from kdbench.store.folder import AGAIN, CANCELLED, CHECKPOINT, CONFIG, PROGRESS, SUBMISSION, RunFolder
from kdbench.store.owner import this_process

TEACHER, *SPECS = expand.plan(request.parse(["methods=ce,kd,corsd", "dataset=digits", "seeds=0,1"]))
CE, CE1, KD = SPECS[:3]
WHERE = {"images": 300, "budget": 1000, "epoch": 3, "epochs": 10, "images_per_second": 100.0, "validation": None}
HOLD = "import sys, time; from pathlib import Path; from kdbench.store import lease; l = lease.acquire(Path(sys.argv[1])); print(flush=True); time.sleep(99)"  # noqa: E501


class Told(SlurmQueue):
    """A queue that a test fills; None: squeue does not respond."""

    def __init__(self, *jobs):
        super().__init__()
        self._jobs = {job.id: job for job in jobs if job.in_queue}
        self._last_states = {job.id: job.state for job in jobs if not job.in_queue}

    def look(self, jobs):
        pass


@pytest.fixture
def ask(tmp_path):
    """Puts a run down, as far as it is said."""

    def put(spec, *, begun=False, progress=None, job=None, **result):
        folder = RunFolder(tmp_path, spec.id)
        folder.enqueue(spec.plain())
        if begun or progress or result:
            folder.begin(f"# {spec.command()}\n\n{spec.config}")
        if progress:
            folder.write(PROGRESS, {**progress, "at": time.time()})
            then = time.time() - 7201
            os.utime(folder / PROGRESS, (then, then))
        if job:
            folder.write(SUBMISSION, {"job": job, "log": str(tmp_path / ".slurm" / job)})
        if result:
            (folder / CHECKPOINT).touch()
            folder.finish({**spec.identity(), **result})
        return folder

    return put


@pytest.fixture
def finished(ask):
    return lambda spec: ask(spec, status="finished", **{"accuracy.last": 71.234, "seconds.train": 75.0})


def held(folder):
    """A process that does the run of a folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder.path)], stdout=subprocess.PIPE)
    process.stdout.readline()
    return process


def state(runs, spec, queue=None):
    (run,) = status_.read(runs, [spec.id], queue)
    return run.state, run.why


def test_planned_stopped_cancelled_failed_done(tmp_path, ask, finished):
    folder = ask(CE)
    assert state(tmp_path, CE) == ("planned", None)
    ask(CE, progress=WHERE)
    assert state(tmp_path, CE) == ("stopped", "2 hours ago")
    (folder / CANCELLED).touch()
    assert state(tmp_path, CE) == ("cancelled", None)
    finished(CE)
    (run,) = status_.read(tmp_path)
    assert (run.state, run.accuracy, run.seconds, run.epoch) == ("done", 71.234, 75.0, None)
    assert (run.method, run.dataset, run.student, run.seed) == ("ce", "digits", "resnet8", 0)
    (folder / CHECKPOINT).unlink()
    assert state(tmp_path, CE)[0] == "stopped", "a result without its weights is not a finished run"
    ask(CE, status="failed", error="the loss is not finite")
    (run,) = status_.read(tmp_path)
    assert (run.state, run.error) == ("failed", "the loss is not finite")


def test_a_run_that_is_asked_for_again_is_planned_and_what_there_was_counts_if_that_is_cancelled(tmp_path, finished):
    folder = finished(CE)
    folder.enqueue(CE.plain(), "fresh")
    assert (folder / AGAIN).exists()
    assert state(tmp_path, CE) == ("planned", "again")
    (folder / CANCELLED).touch()
    assert state(tmp_path, CE) == ("done", None)


def test_running_as_long_as_its_process_lives(tmp_path, ask):
    folder = ask(CE, progress=WHERE)
    process = held(folder)
    (run,) = status_.read(tmp_path)
    assert (run.state, run.epoch, run.epochs, run.images_per_second, run.seconds_left) == ("running", 3, 10, 100.0, 7.0)
    assert run.where == this_process().host
    (folder / CANCELLED).touch()
    assert state(tmp_path, CE) == ("running", "cancelled, stopping")
    (folder / CANCELLED).unlink()
    process.kill()
    process.wait()
    assert state(tmp_path, CE)[0] == "stopped"


@pytest.mark.parametrize("ahead", [-9000, 130, 9000])
def test_the_clock_of_the_file_system_counts(ahead, tmp_path, ask, monkeypatch):
    ask(CE, progress=WHERE)
    process = held(ask(CE1, progress=WHERE))
    owner = json.loads((tmp_path / CE1.id / "lease.1").read_text())
    (tmp_path / CE1.id / "lease.1").write_text(json.dumps({**owner, "host": "elsewhere"}))
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + ahead)
    assert state(tmp_path, CE) == ("stopped", "2 hours ago")
    assert state(tmp_path, CE1) == ("running", None)
    process.kill()
    process.wait()


def test_a_run_that_is_measured_is_not_hung(tmp_path, ask):
    process = held(ask(CE, progress={**WHERE, "measured": 0.416}))
    assert state(tmp_path, CE) == ("running", "measuring, 42% done")
    process.kill()
    process.wait()


def test_a_run_waits_for_a_teacher_that_has_not_ended(tmp_path, ask, finished):
    ask(KD), ask(TEACHER)
    assert state(tmp_path, KD) == ("waiting", "for its teacher (resnet20), which is planned")
    process = held(ask(TEACHER, progress=WHERE))
    assert state(tmp_path, KD) == ("waiting", "for its teacher (resnet20), which is running")
    process.kill()
    finished(TEACHER)
    assert state(tmp_path, KD) == ("planned", None)


@pytest.mark.parametrize(
    ("job", "begun", "expected"),
    [
        (QueuedJob("7_1", "PENDING", "Priority"), False, ("queued", "job 7_1: Priority")),
        (QueuedJob("7_1", "PENDING", "BeginTime"), True, ("queued", "job 7_1: BeginTime")),
        (
            QueuedJob("7_1", "RUNNING", "None", "n1"),
            False,
            ("queued", "job 7_1 is running on n1 and has not started this run yet"),
        ),
        (QueuedJob("7_1", "COMPLETING", "None", "n1"), True, ("stopped", "job 7_1 is ending")),
        (QueuedJob("7_1", "TIMEOUT", in_queue=False), True, ("stopped", "job 7_1: TIMEOUT")),
        (QueuedJob("7_1", "", in_queue=False), False, ("stopped", "job 7_1 has left the queue")),
        (None, False, ("queued", "submitted as job 7_1; squeue does not respond here")),
        (None, True, ("stopped", "submitted as job 7_1; squeue does not respond here")),
    ],
)
def test_what_slurm_says_of_its_job(tmp_path, ask, job, begun, expected):
    ask(KD, job="7_1", begun=begun)
    assert state(tmp_path, KD, Told(job) if job else None) == expected
    ask(TEACHER)
    if job and job.state == "RUNNING":
        expected = ("waiting", "for its teacher (resnet20), which is planned")
    assert state(tmp_path, KD, Told(job) if job else None) == expected


def test_a_job_that_ended_before_its_run_began_shows_why(tmp_path, ask):
    ask(KD, job="7_1")
    log = tmp_path / ".slurm" / "7_1"
    log.parent.mkdir()
    log.write_bytes(b"ModuleNotFoundError: No module named 'torch'\nsrun: error: n1: task 0: Exited with exit code 1\n")
    gone, failed = (Told(QueuedJob("7_1", word, in_queue=False)) for word in ("", "FAILED"))
    assert state(tmp_path, KD, gone) == (
        "stopped", "job 7_1 has left the queue; its log: ModuleNotFoundError: No module named 'torch'",
    )  # fmt: skip
    assert state(tmp_path, KD, failed)[1].startswith("job 7_1: FAILED; its log: ModuleNotFoundError")
    killed = Told(QueuedJob("7_1", "OUT_OF_MEMORY", in_queue=False))
    assert state(tmp_path, KD, killed) == ("stopped", "job 7_1: OUT_OF_MEMORY; request more with Cluster.memory")
    ask(KD, job="7_1", begun=True)  # then the run's own log has it
    assert state(tmp_path, KD, failed) == ("stopped", "job 7_1: FAILED")
    log.write_text(
        "[1/1]  epoch 3/10\nslurmstepd: error: Detected 1 oom_kill event in StepId=7.0.\nsrun: error: killed\n"
    )
    assert state(tmp_path, KD, gone)[1].endswith("its log: slurmstepd: error: Detected 1 oom_kill event in StepId=7.0.")


def test_a_lease_of_a_job_that_is_to_begin_again_is_none(tmp_path, ask, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    folder = ask(CE, begun=True, job="7_1")
    with lease.acquire(folder.path):
        (run,) = status_.read(tmp_path, queue=Told(QueuedJob("7_1", "RUNNING", "None", "n1")))
        assert (run.state, run.job) == ("running", "7_1")
        assert state(tmp_path, CE, Told(QueuedJob("7_1", "PENDING", "BeginTime", number="8"))) == (
            "queued", "job 7_1: BeginTime",
        )  # fmt: skip


def test_slurm_is_asked_only_about_jobs_of_runs_that_have_not_ended(tmp_path, ask, finished):
    asked = []

    class Listening(Told):
        def look(self, jobs):
            asked.append(jobs)

    ask(CE, job="7", status="failed", error="no"), ask(CE1, job="8")
    status_.read(tmp_path, queue=Listening())
    assert asked == [{"8": os.getuid()}]


def test_folders_that_are_no_runs_are_left_out(tmp_path, ask):
    ask(CE)
    for name in ("tuning", ".slurm", "notes"):
        (tmp_path / name).mkdir()
    (tmp_path / "tuning" / CONFIG).touch()
    (tmp_path / "file").touch()
    assert [run.id for run in status_.read(tmp_path)] == [CE.id]


def test_runs_of_older_versions_have_no_spec(tmp_path, ask, finished):
    (finished(CE) / "spec.json").unlink()
    (ask(CE1, begun=True) / "spec.json").unlink()
    for run, spec in zip(status_.read(tmp_path), (CE, CE1), strict=True):
        assert (run.method, run.dataset, run.student, run.recipe) == ("ce", "digits", "resnet8", "quick")
        assert run.seed == spec.seed


def test_a_thousand_runs_take_no_second(tmp_path, ask):
    text = json.dumps(CE.plain())
    for number in range(1000):
        (tmp_path / f"ce-{number}").mkdir()
        (tmp_path / f"ce-{number}" / "spec.json").write_text(text)
    began = time.perf_counter()
    assert len(status_.read(tmp_path)) == 1000
    assert time.perf_counter() - began < 1


def test_a_run_waits_for_the_first_of_its_teachers_that_has_not_ended(tmp_path, ask, finished, own_plugins):
    places.add_plugins([str(Path(__file__).parents[1] / "teaching")])
    planned = expand.plan(request.parse(["methods=dense", "dataset=digits", "teacher=resnet32", "student=resnet8"]))
    teacher, first, second, student = planned
    finished(teacher)
    ask(first, begun=True), ask(second), ask(student)
    states = {run.id: run for run in status_.read(tmp_path)}
    assert [states[spec.id].state for spec in planned] == ["done", "stopped", "waiting", "waiting"]
    assert states[student.id].why == f"for its teacher ({first.id}), which is stopped"
    assert states[student.id].teacher_runs == student.teacher_runs
