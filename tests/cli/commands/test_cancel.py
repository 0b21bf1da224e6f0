import os
import subprocess
import sys
import time

import pytest

from kdbench.cli.main import main
from kdbench.launch import backlog, local
from kdbench.launch.slurm import queue as queue_
from kdbench.plan import expand, request
from kdbench.store.folder import CANCELLED, PROGRESS, RESUME, SUBMISSION, RunFolder

TEACHER, *SPECS = expand.plan(request.parse(["methods=ce,kd", "dataset=digits", "seeds=0,1"]))
CE, CE1, KD, KD1 = SPECS


@pytest.fixture
def asked(tmp_path):
    for spec in SPECS:
        RunFolder(tmp_path, spec.id).enqueue(spec.plain())
    return ["--runs", str(tmp_path)]


@pytest.fixture
def slurm(monkeypatch):
    """A queue with given contents, and the calls of scancel that it received."""
    calls, queue = [], {}
    monkeypatch.setattr(queue_, "cancel", lambda ids: calls.append(ids))
    monkeypatch.setattr(queue_, "read", lambda users: queue)
    monkeypatch.setattr(queue_, "_last_states", lambda ids: {})
    queue.update({id_: queue_.QueuedJob(id_, "PENDING", "Priority") for id_ in ("7_0", "7_1", "8")})
    return calls


def submit(runs, spec, job):
    RunFolder(runs, spec.id).write(SUBMISSION, {"job": job})


def cancelled(runs):
    return {path.parent.name for path in runs.glob(f"*/{CANCELLED}")}


def test_the_user_says_what_or_all(asked, tmp_path, capsys):
    assert main(["cancel", *asked]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "kdbench: specify which runs to cancel: run ids or prefixes, methods=A,B, state=queued, …, or 'all'"
    assert main(["cancel", "all", "methods=kd", *asked]) == 2
    assert "'all' cannot be combined with other selections" in capsys.readouterr().err
    assert cancelled(tmp_path) == set()


def test_runs_that_have_ended_are_left_alone_and_the_next_plan_goes_on(asked, tmp_path, capsys):
    RunFolder(tmp_path, CE.id).finish({**CE.identity(), "status": "failed", "error": "no"})
    assert main(["cancel", "methods=ce", *asked]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"cancelled 1 run: 1 planned\n  {CE1.id}\n")
    assert cancelled(tmp_path) == {CE1.id}
    assert main(["cancel", "methods=ce", *asked]) == 0
    assert capsys.readouterr().out == "nothing to cancel: 2 runs: 1 cancelled, 1 failed\n"
    backlog.enqueue(SPECS, tmp_path)
    assert cancelled(tmp_path) == set()
    assert main(["cancel", "all", *asked]) == 0
    assert cancelled(tmp_path) == {spec.id for spec in SPECS}, "a failed run that was asked for again, too"


def test_jobs_leave_the_queue_when_all_their_runs_are_cancelled(asked, tmp_path, slurm, capsys):
    submit(tmp_path, CE, "7_0"), submit(tmp_path, CE1, "7_0"), submit(tmp_path, KD, "7_1"), submit(tmp_path, KD1, "6")
    assert main(["cancel", CE.id, *asked]) == 0
    assert slurm == []
    assert main(["cancel", "all", *asked]) == 0
    assert slurm == [("7_0", "7_1")], "in one call; job 6 has gone already"
    assert "Removed from SLURM's queue: 2 jobs: 7_0, 7_1" in capsys.readouterr().out


def test_a_job_that_stays_in_the_queue_is_told(asked, tmp_path, slurm, capsys, monkeypatch):
    monkeypatch.setattr(queue_, "cancel", lambda ids: "scancel: error: Access/permission denied")
    submit(tmp_path, CE, "8")
    assert main(["cancel", CE.id, *asked]) == 1
    assert "SLURM did not cancel the jobs 8: scancel: error: Access/permission denied" in capsys.readouterr().err
    assert cancelled(tmp_path) == {CE.id}


def test_a_run_in_another_process_keeps_its_state_and_stops_and_goes_on_later(tmp_path, capsys):
    words = ["methods=ce", "dataset=digits", "Train.epochs=3000", "Train.warmup=0", "--runs", str(tmp_path)]
    (spec,) = expand.plan(request.parse(words[:4]))
    folder = RunFolder(tmp_path, spec.id)
    process = subprocess.Popen(
        [sys.executable, "-m", "kdbench", "run", *words], stderr=subprocess.PIPE, text=True, env={**os.environ}
    )
    end = time.monotonic() + 60
    while not (folder / PROGRESS).exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    assert main(["cancel", spec.id, "--runs", str(tmp_path)]) == 0
    assert "save their state and stop within seconds" in capsys.readouterr().out
    began = time.monotonic()
    _, errors = process.communicate(timeout=30)
    assert time.monotonic() - began < 20
    assert "stopped; the next kdbench run resumes it" in errors
    assert (folder / RESUME).exists()
    assert main(["status", "--runs", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("1 run: 1 cancelled\n")
    backlog.enqueue([spec], tmp_path)
    assert main(["status", "--runs", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("1 run: 1 stopped\n")


def test_a_teacher_that_finished_just_as_it_was_cancelled_teaches(tmp_path):
    words = [
        "methods=kd",
        "dataset=digits",
        "Train.epochs=1",
        "Train.warmup=0",
        "Measures.corruptions=False",
        "Measures.images=10",
    ]
    teacher, student = expand.plan(request.parse(words))
    local.inline([teacher], tmp_path, None)
    (RunFolder(tmp_path, teacher.id) / CANCELLED).touch()
    (result,) = local.inline([student], tmp_path, None)
    assert result["status"] == "finished"
