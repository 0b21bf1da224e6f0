"""The right to do a run: one process at a time, on every machine that sees the folder. No torch here.

A lease is a file `lease.N` in the run's folder, made so that only one process can make it, and touched every
`HEARTBEAT` seconds. A lease whose owner is known to be dead, or that was not touched for `STALE` seconds, is taken over by making
`lease.N+1`: nothing is ever renamed or deleted from under somebody else. Whoever finds a live lease beside the own one
withdraws, and an owner that was asleep for so long finds the next number and stops (`check`).
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from kdbench.errors import RunError

HEARTBEAT = 10.0
"""Seconds between two touches by the owner."""
STALE = 120.0
"""Seconds without a touch after which an owner counts as dead; attributes on NFS may be a minute old."""

_NAME = "lease."


@dataclass(frozen=True)
class Owner:
    """The process that holds a lease.

    Attributes:
        host, boot, namespace: the machine, its boot, and the process namespace that `pid` counts in.
        pid, started: the process, and its start in clock ticks since the boot, because numbers of processes come again.
        job, restart: SLURM's job and how often it was requeued; "" outside SLURM.
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
        """Whether its process number means the same here."""
        me = this_process()
        return (self.host, self.boot, self.namespace) == (me.host, me.boot, me.namespace)

    def is_dead(self) -> bool:
        """Whether the process certainly is no more: asked on its own machine, or by the same job after a requeue."""
        me = this_process()
        if self.job and self.job == me.job and self.restart < me.restart:
            return True
        return self.is_here() and started(self.pid) != self.started


class Held(RunError):
    """Another process has the lease.

    Attributes:
        owner: that process.
        touched: when it last touched its lease, by the clock of the file system.
    """

    def __init__(self, owner: Owner, touched: float):
        super().__init__(f"it is being done by {owner}")
        self.owner, self.touched = owner, touched


class Lost(RunError):
    """The lease was taken over; nothing may be written any more."""


def this_process() -> Owner:
    """The owner that this process is."""
    job = os.environ.get("SLURM_JOB_ID", "")
    restart = int(os.environ.get("SLURM_RESTART_COUNT") or 0) if job else 0
    boot, namespace = _machine()
    return Owner(socket.gethostname(), boot, namespace, os.getpid(), started(os.getpid()), job, restart)


def slurm_job() -> str:
    """SLURM's job that this process is in, as its commands name it ("12", "12_3" in an array); "" outside SLURM."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "")


@cache
def _machine() -> tuple[str, str]:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return boot, os.readlink("/proc/self/ns/pid")
    except OSError:  # no Linux: only the age of a lease counts
        return f"{random.getrandbits(64)}", ""


def started(pid: int) -> str:
    """When a process of this machine began; "" if there is none, or only its unreaped remains."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


@dataclass(frozen=True)
class _Found:
    number: int
    owner: Owner
    touched: float
    now: float

    @property
    def live(self) -> bool:
        return self.now - self.touched < STALE and not self.owner.is_dead()


def _files(folder: Path) -> dict[int, Path]:
    found = {}
    for path in folder.glob(f"{_NAME}*"):
        with contextlib.suppress(ValueError):
            found[int(path.name.removeprefix(_NAME))] = path
    return found


def _read(folder: Path, now: float) -> list[_Found]:
    leases = []
    for number, path in _files(folder).items():
        # Opened, not only asked for: on NFS this is what fetches the attributes anew.
        try:
            with path.open(encoding="utf-8") as file:
                text, touched = file.read(), os.fstat(file.fileno()).st_mtime
        except FileNotFoundError:
            continue
        try:
            owner = Owner(**json.loads(text))
        except (ValueError, TypeError):
            owner = Owner("an unknown machine", "", "", 0, "")  # torn by a full disk: only its age says anything
        leases.append(_Found(number, owner, touched, now))
    return leases


def _now(folder: Path) -> float:
    """The time by the clock of the file system, which may not be this machine's."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".clock.") as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:  # read-only or full: a reader that only looks
        return time.time()


def owner(folder: Path) -> Owner | None:
    """Who does the run of `folder` now, if anybody does; for those that only look."""
    if not _files(folder):
        return None
    live = [found for found in _read(folder, time.time()) if found.live]
    return live[0].owner if live else None


class Lease:
    """A lease that this process holds, kept alive by a thread until `release`."""

    def __init__(self, folder: Path, number: int):
        self._folder = folder
        self._number = number
        self._path = folder / f"{_NAME}{number}"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *details: object) -> None:
        self.release()

    def check(self) -> None:
        """Call before writing.

        Raises:
            Lost: another process has taken the run over.
        """
        numbers = _files(self._folder)
        if self._number not in numbers or max(numbers) > self._number:
            raise Lost("another process has taken this run over, because this one was not heard of for too long")

    def release(self) -> None:
        """Let others have the run."""
        self._end()
        for number, path in sorted(_files(self._folder).items()):
            if number <= self._number:
                path.unlink(missing_ok=True)

    def withdraw(self) -> None:
        """Give up this lease beside another's live one, leaving that one alone."""
        self._end()
        self._path.unlink(missing_ok=True)

    def _end(self) -> None:
        self._over.set()
        self._thread.join()

    def _keep(self) -> None:
        while not self._over.wait(HEARTBEAT):
            # What fails here (a lease taken over, a file system that is away) the owner's next `check` finds.
            with contextlib.suppress(OSError):
                os.utime(self._path)


def acquire(folder: Path) -> Lease:
    """Take the lease of the run in `folder`, which is made if it is not there.

    Raises:
        Held: another process has it, and may be alive.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for _ in range(4):
        leases = _read(folder, _now(folder))
        for found in leases:
            if found.live:
                raise Held(found.owner, found.touched)
        number = max((found.number for found in leases), default=0) + 1
        try:
            _make(folder / f"{_NAME}{number}")
        except FileExistsError:
            continue
        lease = Lease(folder, number)
        others = [found for found in _read(folder, _now(folder)) if found.number != number and found.live]
        if not others and max(_files(folder)) == number:
            return lease
        lease.withdraw()
        time.sleep(random.uniform(0.05, 0.3))
    raise Held(Owner("another machine", "", "", 0, ""), 0.0)  # several at once, again and again: let the others have it


def _make(path: Path) -> None:
    """Make `path`; its content follows, and whoever reads it in between finds a fresh lease of nobody known.

    Raises:
        FileExistsError: it is there.
    """
    with path.open("x", encoding="utf-8") as file:  # O_EXCL: the file server lets one have it
        try:
            json.dump(asdict(this_process()), file)
            file.flush()
        except OSError:
            path.unlink()
            raise
