"""Processes as owners of leases: which one they are, and whether they still live."""

from __future__ import annotations

import os
import random
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Owner:
    """The process that holds a lease.

    Attributes:
        host, boot, namespace: the machine, its boot, and the process namespace that `pid` counts in.
        pid, started: the process, and its start in clock ticks since the boot, because process ids are reused.
        job, restart: the SLURM job and how often it was requeued; "" and 0 outside SLURM.
    """

    host: str
    boot: str
    namespace: str
    pid: int
    started: str
    job: str = ""
    restart: int = 0

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" + (f" (job {self.job})" if self.job else "")

    def is_here(self) -> bool:
        """True if the process runs on this machine, in this process namespace."""
        me = this_process()
        return (self.host, self.boot, self.namespace) == (me.host, me.boot, me.namespace)

    def is_dead(self) -> bool:
        """True if the process has certainly ended, as seen from its own machine or from the same job after a requeue."""
        me = this_process()
        if self.job and self.job == me.job and self.restart < me.restart:
            return True
        return self.is_here() and started(self.pid) != self.started

    def is_awake(self) -> bool:
        """True if the process certainly lives and is not suspended (SIGSTOP), as seen from its own machine."""
        return self.is_here() and started(self.pid) == self.started and _state(self.pid) not in "Tt"


def this_process() -> Owner:
    """This process as an owner of leases."""
    job = os.environ.get("SLURM_JOB_ID", "")
    restart = int(os.environ.get("SLURM_RESTART_COUNT") or 0) if job else 0
    boot, namespace = _machine()
    return Owner(socket.gethostname(), boot, namespace, os.getpid(), started(os.getpid()), job, restart)


def slurm_job() -> str:
    """The SLURM job of this process as SLURM's commands name it ("12", or "12_3" in an array); "" outside SLURM."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "")


@cache
def _machine() -> tuple[str, str]:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return boot, os.readlink("/proc/self/ns/pid")
    except OSError:  # not Linux: only the age of a lease counts
        return f"{random.SystemRandom().getrandbits(64)}", ""


def started(pid: int) -> str:
    """Start of a process of this machine in clock ticks since the boot; "" if there is no such process, or only a zombie."""
    fields = _stat(pid)
    return "" if not fields or fields[0] in "ZX" else fields[19]


def _state(pid: int) -> str:
    """State of a process as in /proc: "T" or "t" if it is stopped; "" if there is no such process."""
    return "".join(_stat(pid)[:1])


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name; none if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return []
