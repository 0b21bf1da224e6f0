"""`kdbench status` and `kdbench cancel` beside a real SLURM."""

from __future__ import annotations

import sys
import time

import pytest

from kdbench.cli.main import main
from kdbench.launch import status
from kdbench.launch.slurm.queue import SlurmQueue
from kdbench.plan import expand, request
from kdbench.store.folder import RESUME, SUBMISSION, RunFolder

pytestmark = pytest.mark.slurm

FIRST, SECOND, THIRD, FOURTH = expand.plan(
    request.parse(["methods=ce", "dataset=digits", "seeds=0,1,2,3", "Train.epochs=3000", "Train.warmup=0"])
)


@pytest.fixture
def submitted(cluster, tmp_path):
    """Puts a run down that is in a job."""

    def submit(spec, job):
        folder = RunFolder(tmp_path, spec.id)
        folder.enqueue(spec.plain())
        folder.write(SUBMISSION, {"job": job, "cluster": "test", "log": str(tmp_path / f"{job}.out")})
        return folder

    yield submit
    cluster.cancel_all()


def states(runs):
    return {run.id: (run.state, run.why) for run in status.read(runs, queue=SlurmQueue())}


def until(holds, seconds=60):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "nothing came of it"
        time.sleep(0.2)


def test_pending_jobs_with_slurms_reason_and_jobs_that_have_gone(cluster, submitted, tmp_path):
    array = cluster.sbatch("sleep 600", "--array=0-1%1")
    cluster.wait(f"{array}_0", "RUNNING", timeout=20)
    held = cluster.sbatch("sleep 600", "--hold")
    gone = cluster.sbatch("exit 3")
    submitted(FIRST, f"{array}_0"), submitted(SECOND, f"{array}_1"), submitted(THIRD, held), submitted(FOURTH, gone)
    until(lambda: gone not in {job["job"] for job in cluster.squeue()})
    until(lambda: states(tmp_path)[SECOND.id] == ("queued", f"job {array}_1: JobArrayTaskLimit"))
    by_run = states(tmp_path)
    assert by_run[FIRST.id][0] == "queued"
    assert by_run[FIRST.id][1].startswith(f"job {array}_0 is running on n")
    assert by_run[THIRD.id] == ("queued", f"job {held}: JobHeldUser")
    # Accounting, where it is there, takes a moment.
    assert by_run[FOURTH.id] in {("stopped", f"job {gone} has left the queue"), ("stopped", f"job {gone}: FAILED")}


def test_cancel_takes_a_job_out_of_the_queue_once_no_run_of_it_is_left(cluster, submitted, tmp_path, capsys):
    array = cluster.sbatch("sleep 600", "--array=0-1", "--hold")
    submitted(FIRST, f"{array}_0"), submitted(SECOND, f"{array}_0"), submitted(THIRD, f"{array}_1")
    words = ["--runs", str(tmp_path)]
    assert main(["cancel", FIRST.id, *words]) == 0
    assert {job["job"] for job in cluster.squeue()} == {f"{array}_0", f"{array}_1"}
    assert main(["cancel", SECOND.id, *words]) == 0
    until(lambda: {job["job"] for job in cluster.squeue()} == {f"{array}_1"})
    assert f"Removed from SLURM's queue: 1 job: {array}_0" in capsys.readouterr().out
    assert {run for run, (state, _) in states(tmp_path).items() if state == "cancelled"} == {FIRST.id, SECOND.id}


def test_a_run_in_a_job_is_seen_running_and_can_be_cancelled_from_here(cluster, submitted, tmp_path, capsys):
    for spec in (FIRST, SECOND):
        RunFolder(tmp_path, spec.id).enqueue(spec.plain())  # before a job can look for it
    job = cluster.sbatch(
        f"exec {sys.executable} -m kdbench.launch.worker {tmp_path} {FIRST.id} {SECOND.id}",
        "--output",
        str(tmp_path / "out"),
    )
    folder = submitted(FIRST, job)
    submitted(SECOND, job)
    until(lambda: states(tmp_path)[FIRST.id][0] == "running" and (folder / "progress.json").exists())
    first, second = status.read(tmp_path, [FIRST.id, SECOND.id], SlurmQueue())
    if first.id != FIRST.id:
        first, second = second, first
    assert (first.job, first.epochs) == (job, 3000)
    assert second.why.startswith(f"job {job} is running on n")
    assert main(["cancel", "all", "--runs", str(tmp_path)]) == 0
    assert "cancelled 2 runs: 1 running, 1 queued" in capsys.readouterr().out
    until(lambda: job not in {each["job"] for each in cluster.squeue()}, 30)
    assert (folder / RESUME).exists()
    assert set(states(tmp_path).values()) == {("cancelled", None)}
