"""The launchers, one for each executor: functions `launch(workload, report)` that get runs done, here or elsewhere.

A launcher that does the runs itself returns once they have ended. One that hands them to a queue returns once the queue has
them, and reports each part before. Either way the results go to the runs' folders and nowhere else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdbench.config import extensions
from kdbench.errors import UserError
from kdbench.launch import backlog
from kdbench.launch import local as local_
from kdbench.plan.request import Request
from kdbench.plan.spec import Spec

LAUNCHERS = {"inline": "inline", "local": "local", "slurm": "slurm"}


@dataclass(frozen=True)
class Handover:
    """Runs that jobs outside this process do.

    Attributes:
        runs: number of runs.
        jobs: their jobs, as users name them: "job 12", "jobs 12_[0-4]".
        description: the runs and what they wait for, in a few words.
        earlier: whether an earlier command submitted them.
    """

    runs: int
    jobs: str
    description: str = ""
    earlier: bool = False


@dataclass(frozen=True)
class Workload:
    """Runs to do, and what a launcher needs to know about them.

    Attributes:
        specs: the runs, teachers first; at least one.
        request: the user's request: workers, runs per GPU, cluster profile.
        runs, data: the folders of runs and datasets.
        rerun: whether finished runs are repeated.
        wait: whether to wait for the runs of other processes; for launchers that do the runs themselves.
    """

    specs: Sequence[Spec]
    request: Request
    runs: Path
    data: Path | None
    rerun: bool = False
    wait: bool = False


Report = Callable[[Handover], None]
Launcher = Callable[[Workload, Report], None]


def launch(workload: Workload, report: Report) -> None:
    """Get runs done by the executor that the request names.

    Args:
        report: called for each part that is handed to a queue.

    Raises:
        KeyboardInterrupt: the user interrupted it; all runs have saved their state.
        RunError: the disk is full, no process can be started, or SLURM refused part of the runs.
        UserError: the executor does not work here; nothing was started.
    """
    launcher: Launcher = extensions.load(extensions.member("launcher", workload.request.executor))
    launcher(workload, report)


def inline(workload: Workload, report: Report) -> None:
    """Do runs one after the other in this process; several GPUs per run need a process each, and go to `local`."""
    if workload.specs[0].gpus > 1:
        local(workload, report)
    else:
        local_.inline(workload.specs, workload.runs, workload.data, workload.rerun, workload.wait)


def local(workload: Workload, report: Report) -> None:
    """Do runs in several processes of this machine."""
    request = workload.request
    local_.local(
        workload.specs,
        workload.runs,
        workload.data,
        request.workers,
        workload.rerun,
        workload.wait,
        request.runs_per_gpu,
    )


def slurm(workload: Workload, report: Report) -> None:
    """Submit runs as jobs of a SLURM cluster, except those that are in a job already."""
    from kdbench.launch.slurm import queue, submission

    cluster, profile = workload.request.cluster, workload.request.profile
    assert cluster is not None  # every request with executor=slurm has a profile
    assert profile is not None
    if not submission.is_here():
        raise UserError("this machine has no SLURM (sbatch is not on the PATH); run this on a login node")
    jobs = queue.read([os.getuid()])
    if jobs is None:
        raise UserError("SLURM did not respond; check that squeue works")
    # Jobs may have finished runs since the plan was made, and while squeue took its time.
    specs = backlog.open_runs(workload.specs, workload.runs, workload.rerun)
    planned = submission.Submission(specs, workload.runs, profile, jobs, workload.request.runs_per_gpu)
    if planned.submitted:
        earlier = dict.fromkeys(job.partition("_")[0] for job in planned.submitted.values())
        report(Handover(len(planned.submitted), ", ".join(earlier), earlier=True))
    for array, ids in planned.submit(workload.data, cluster, workload.rerun):
        report(Handover(sum(map(len, array.jobs)), submission.named(ids), str(array)))
