"""The state of SLURM jobs: one call of squeue for all, one of sacct for those that have left the queue. No torch here.

Where these programs are missing, do not respond or keep no accounts, the state is unknown, which is not an error.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from kdbench.launch.slurm import commands

EVERY = 10.0
"""Seconds between two queries by one process: the controller of a cluster is shared by all its users."""

_PENDING = ("PENDING", "REQUEUED", "REQUEUE_HOLD")
_ENDING = ("COMPLETING", "STAGE_OUT")
_NOT_ENDED = (*_PENDING, *_ENDING, "RUNNING", "SUSPENDED", "CONFIGURING", "RESIZING")


@dataclass(frozen=True)
class QueuedJob:
    """A job as SLURM reports it.

    Attributes:
        id: number as users write it: 1234, or 1234_5 for a task of an array.
        state: SLURM's word, such as PENDING, RUNNING, TIMEOUT; "" for a job that has left the queue without a record.
        reason: why it is pending, in SLURM's words.
        nodes: nodes it runs on.
        number: its SLURM_JOB_ID, which differs from `id` for a task of an array.
        in_queue: whether squeue lists it.
    """

    id: str
    state: str
    reason: str = ""
    nodes: str = ""
    number: str = ""
    in_queue: bool = True

    @property
    def is_pending(self) -> bool:
        return self.in_queue and self.state in _PENDING

    @property
    def is_over(self) -> bool:
        """True if it has ended, or is ending."""
        return not self.in_queue or self.state in _ENDING


class SlurmQueue:
    """The jobs that were queried, queried again every `EVERY` seconds at most."""

    def __init__(self) -> None:
        self._jobs: dict[str, QueuedJob] | None = None
        self._last_states: dict[str, str] = {}
        self._queried_at: float | None = None
        self._queried: set[str] = set()

    def look(self, jobs: Mapping[str, int]) -> None:
        """Query the state of jobs.

        Args:
            jobs: numbers of the users who submitted them, by id.
        """
        now = time.monotonic()
        recent = self._queried_at is not None and now - self._queried_at < EVERY
        if not jobs or (recent and jobs.keys() <= self._queried):
            return
        self._queried_at, self._queried = now, set(jobs)
        self._jobs = read({os.getuid(), *jobs.values()})
        if self._jobs is not None:
            gone = [id_ for id_ in jobs if id_ not in self._jobs]
            self._last_states.update(_last_states([id_ for id_ in gone if id_ not in self._last_states]))

    def job(self, id_: str) -> QueuedJob | None:
        """A job that was queried; None if squeue is missing or does not respond."""
        if self._jobs is None:
            return None
        return self._jobs.get(id_) or QueuedJob(id_, self._last_states.get(id_, ""), in_queue=False)

    def is_pending(self, number: str) -> bool:
        """True if the last query returned the job with this SLURM_JOB_ID as pending."""
        return any(job.number == number and job.is_pending for job in (self._jobs or {}).values())


def read(users: Iterable[int]) -> dict[str, QueuedJob] | None:
    """All jobs of some users that SLURM has not ended yet, tasks of arrays one by one, by id; None if SLURM does not respond."""
    # --jobs fails if one of them is unknown, so all jobs of the users are queried.
    lines = _ask(
        *("squeue", "--noheader", "--array", "--all", f"--user={','.join(map(str, sorted(users)))}"),
        *("-o", "%i|%A|%T|%N|%r"),
    )
    if lines is None:
        return None
    rows = [cells for line in lines if len(cells := line.strip().split("|", 4)) == 5]
    return {id_: QueuedJob(id_, state, reason, nodes, number) for id_, number, state, nodes, reason in rows}


def is_running(id_: str) -> bool:
    """True if SLURM reports a job of this user as running."""
    job = (read({os.getuid()}) or {}).get(id_)
    return job is not None and job.state == "RUNNING"


def requeue(id_: str) -> None:
    """Put a running job back into the queue."""
    _ask("scontrol", "requeue", id_)


def cancel(jobs: Sequence[str]) -> str | None:
    """Take jobs out of SLURM's queue, and end those that run.

    Returns:
        None, or the error message.
    """
    try:
        done = commands.call("scancel", *jobs)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"scancel: {error}"
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["scancel failed"])[0]


def _last_states(jobs: Sequence[str]) -> dict[str, str]:
    """The final states of jobs, as far as SLURM's accounting has them."""
    if not jobs:
        return {}
    arrays = sorted({id_.partition("_")[0] for id_ in jobs})  # a short list, also for thousands of tasks
    lines = _ask(
        "sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={','.join(arrays)}", "--format=JobID,State"
    )
    states = dict(cells for line in lines or () if len(cells := line.strip().split("|")) == 2)
    words = {id_: states[id_].split()[0] for id_ in jobs if states.get(id_, "").strip()}  # "CANCELLED by 1000"
    return {id_: word for id_, word in words.items() if word not in _NOT_ENDED}  # accounting lags behind the queue


def _ask(*words: str) -> list[str] | None:
    """The lines that one of SLURM's programs prints; None if it is missing, fails, or takes too long."""
    try:
        done = commands.call(*words)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.splitlines() if done.returncode == 0 else None
