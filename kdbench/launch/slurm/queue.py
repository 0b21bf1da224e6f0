"""What SLURM says of jobs: one call of squeue for all, one of sacct for those that have gone. No torch here.

Where the programs are missing, do not answer or keep no accounts, nothing is known, which is no error.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

TIMEOUT = 10.0
"""Seconds that squeue, sacct and scancel get to answer."""
EVERY = 10.0
"""Seconds between two questions by one process: the controller of a cluster has other things to do."""

_PENDING = ("PENDING", "REQUEUED", "REQUEUE_HOLD")
_ENDING = ("COMPLETING", "STAGE_OUT")
_NOT_ENDED = (*_PENDING, *_ENDING, "RUNNING", "SUSPENDED", "CONFIGURING", "RESIZING")


@dataclass(frozen=True)
class Job:
    """What is known of a job.

    Attributes:
        id: as a user names it: 1234, or 1234_5 for a task of an array.
        state: SLURM's word, such as PENDING, RUNNING, TIMEOUT; "" for a job that has gone without anybody knowing how.
        reason: why it is pending, in SLURM's words.
        nodes: where it runs.
        in_queue: whether squeue knows it.
    """

    id: str
    state: str
    reason: str = ""
    nodes: str = ""
    in_queue: bool = True

    @property
    def is_pending(self) -> bool:
        return self.in_queue and self.state in _PENDING

    @property
    def is_over(self) -> bool:
        """Whether it does nothing any more, or nothing but end."""
        return not self.in_queue or self.state in _ENDING


class Slurm:
    """What SLURM says of jobs, asked anew every `EVERY` seconds at most."""

    def __init__(self) -> None:
        self._queue: dict[str, Job] | None = None
        self._pending: frozenset[str] = frozenset()
        self._gone: dict[str, str] = {}
        self._asked: float | None = None
        self._known: set[str] = set()

    def look(self, jobs: Mapping[str, int]) -> None:
        """Ask about jobs.

        Args:
            jobs: by id, the number of the user who submitted it.
        """
        now = time.monotonic()
        if not jobs or (self._asked is not None and now - self._asked < EVERY and jobs.keys() <= self._known):
            return
        self._asked, self._known = now, set(jobs)
        self._read_queue({os.getuid(), *jobs.values()})
        if self._queue is not None:
            gone = [id_ for id_ in jobs if id_ not in self._queue]
            self._gone.update(_last_states([id_ for id_ in gone if id_ not in self._gone]))

    def job(self, id_: str) -> Job | None:
        """What is known of a job that was asked about; None if squeue is not there or does not answer."""
        if self._queue is None:
            return None
        return self._queue.get(id_) or Job(id_, self._gone.get(id_, ""), in_queue=False)

    def is_pending(self, number: str) -> bool:
        """Whether the job with this SLURM_JOB_ID, which for a task of an array is not its id, certainly does not run."""
        return number in self._pending

    def _read_queue(self, users: Iterable[int]) -> None:
        # --jobs fails if one of them is unknown, so all jobs of the users are asked for.
        lines = ask(
            *("squeue", "--noheader", "--array", "--all", f"--user={','.join(map(str, sorted(users)))}"),
            *("-o", "%i|%A|%T|%N|%r"),
        )
        if lines is None:
            self._queue, self._pending = None, frozenset()
            return
        found = [parts for line in lines if len(parts := line.strip().split("|", 4)) == 5]
        self._queue = {id_: Job(id_, state, reason, nodes) for id_, _, state, nodes, reason in found}
        self._pending = frozenset(number for _, number, state, _, _ in found if state in _PENDING)


def cancel(jobs: Sequence[str]) -> str | None:
    """Take jobs out of SLURM's queue, and end those that run.

    Returns:
        None, or what was wrong.
    """
    try:
        done = subprocess.run(["scancel", *jobs], capture_output=True, text=True, timeout=TIMEOUT)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"scancel: {error}"
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["scancel failed"])[0]


def _last_states(jobs: Sequence[str]) -> dict[str, str]:
    """How jobs ended, of those that SLURM's accounting knows."""
    if not jobs:
        return {}
    arrays = sorted({id_.partition("_")[0] for id_ in jobs})  # a short list, also for thousands of tasks
    lines = ask(
        "sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={','.join(arrays)}", "--format=JobID,State"
    )
    found = dict(parts for line in lines or () if len(parts := line.strip().split("|")) == 2)
    words = {id_: found[id_].split()[0] for id_ in jobs if found.get(id_, "").strip()}  # "CANCELLED by 1000"
    return {id_: word for id_, word in words.items() if word not in _NOT_ENDED}  # the accounts come late


def ask(*words: str) -> list[str] | None:
    """The lines that one of SLURM's programs prints; None if it is not there, fails, or takes too long."""
    # The user's own SQUEUE_STATES, SACCT_FORMAT and the like would change what comes.
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("SQUEUE_", "SACCT_"))}
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=TIMEOUT, stdin=subprocess.DEVNULL, env=environment
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.splitlines() if done.returncode == 0 else None


def queue() -> dict[str, str] | None:
    """The state of each of this user's jobs that SLURM has not ended yet, array jobs one by one ("12_3").

    None: SLURM does not answer.
    """
    lines = ask("squeue", "--noheader", "--array", "--all", f"--user={os.getuid()}", "--format=%i %T")
    return None if lines is None else dict(line.split() for line in lines)
