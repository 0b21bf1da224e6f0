"""What a cancellation does, as data; what is printed is in tests/cli/commands/test_cancel.py."""

from dataclasses import replace

import pytest

from kdbench.launch import cancel, status
from kdbench.launch.slurm import queue as queue_
from kdbench.launch.slurm.queue import QueuedJob, SlurmQueue
from kdbench.plan import expand, request
from kdbench.store.folder import CANCELLED, SUBMISSION, RunFolder

SPECS = expand.plan(request.parse(["methods=ce", "dataset=digits", "seeds=0,1,2"]))


@pytest.fixture
def queue(tmp_path, monkeypatch):
    """Three planned runs, two of them in job 7 and one in job 8, and a scancel that refuses job 8."""
    for spec, job in zip(SPECS, ("7", "7", "8"), strict=True):
        folder = RunFolder(tmp_path, spec.id)
        folder.path.mkdir()
        folder.write("spec.json", spec.plain())
        folder.write(SUBMISSION, {"job": job})
    monkeypatch.setattr(queue_, "read", lambda users: {job: QueuedJob(job, "PENDING") for job in ("7", "8")})
    monkeypatch.setattr(queue_, "cancel", lambda jobs: "not allowed" if "8" in jobs else None)
    return SlurmQueue()


def test_a_job_leaves_the_queue_with_its_last_run(tmp_path, queue):
    def one(number):
        every = status.read(tmp_path, queue=queue)
        selected = [run for run in every if run.id == SPECS[number].id]
        return cancel.cancel(selected, every, tmp_path, queue)

    first = one(0)
    assert ([run.id for run in first.runs], first.jobs, first.refusal) == ([SPECS[0].id], (), None)
    assert first.runs[0].state == "queued", "as it was before"
    assert (RunFolder(tmp_path, SPECS[0].id) / CANCELLED).exists()
    assert one(0).runs == (), "it has ended"
    assert one(1).jobs == ("7",)
    refused = one(2)
    assert (refused.jobs, refused.refusal) == (("8",), "not allowed")
    assert (RunFolder(tmp_path, SPECS[2].id) / CANCELLED).exists()


def test_a_marker_that_is_a_link_is_replaced_and_not_followed(tmp_path, queue):
    marker = RunFolder(tmp_path, SPECS[0].id) / CANCELLED
    marker.symlink_to(tmp_path / "mine")
    every = status.read(tmp_path, queue=queue)
    cancel.cancel([run for run in every if run.id == SPECS[1].id], every, tmp_path, queue)
    assert marker.is_symlink()
    planned = [replace(run, state="planned") for run in every if run.id == SPECS[0].id]
    cancel.cancel(planned, every, tmp_path, queue)
    assert marker.is_file()
    assert not marker.is_symlink()
    assert not (tmp_path / "mine").exists()
