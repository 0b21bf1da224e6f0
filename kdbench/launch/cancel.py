"""Stop runs that are queued or running, on any machine. No torch here.

A marker in a run's folder stops the process that does the run, or keeps processes from starting it. SLURM jobs that have no
other run to do leave its queue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kdbench.errors import RunError
from kdbench.launch.slurm import queue as queue_
from kdbench.launch.slurm.queue import SlurmQueue
from kdbench.launch.status import ENDED, RunStatus
from kdbench.store.folder import CANCELLED, RunFolder


@dataclass(frozen=True)
class Cancellation:
    """The outcome of `cancel`.

    Attributes:
        runs: the cancelled runs, in their state before.
        jobs: the SLURM jobs that have no run left to do.
        refusal: why SLURM kept these jobs; None if they left its queue.
    """

    runs: tuple[RunStatus, ...]
    jobs: tuple[str, ...] = ()
    refusal: str | None = None


def cancel(selected: Sequence[RunStatus], every: Sequence[RunStatus], runs: Path, queue: SlurmQueue) -> Cancellation:
    """Cancel those of the selected runs that have not ended.

    Args:
        every: all runs of the folder `runs`, which share jobs with the selected ones.
        queue: SLURM's queue, as these were read with.

    Raises:
        RunError: a folder cannot be written to.
    """
    not_ended = tuple(run for run in selected if run.state not in ENDED)
    for run in not_ended:
        try:
            marker = RunFolder(runs, run.id) / CANCELLED
            if marker.is_symlink():  # touching it would touch what it leads to
                marker.unlink()
            marker.touch()
        except OSError as error:
            raise RunError(f"cannot cancel {run.id}: {error.strerror}") from error
    jobs = _idle_jobs(every, {run.id for run in not_ended}, queue)
    return Cancellation(not_ended, jobs, queue_.cancel(jobs) if jobs else None)


def _idle_jobs(every: Sequence[RunStatus], cancelled: set[str], queue: SlurmQueue) -> tuple[str, ...]:
    """The jobs in SLURM's queue that have a cancelled run, and no other run left to do."""
    affected = {run.job for run in every if run.id in cancelled and run.job}
    busy = {run.job for run in every if run.id not in cancelled and run.state not in ENDED}
    jobs = [job for id_ in affected - busy if (job := queue.job(id_))]
    return tuple(sorted(job.id for job in jobs if not job.is_over))
