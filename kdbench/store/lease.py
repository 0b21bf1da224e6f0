"""Leases: only one process at a time does a run, across all machines that share the folder.

A lease is a file `lease.N` in the run's folder. It is created exclusively (O_EXCL) and touched every `HEARTBEAT` seconds.
If its owner is known to be dead, or it was not touched for `STALE` seconds, another process takes over by creating
`lease.N+1`; no process renames or deletes a file of another one. A process that sees a live lease next to its own
withdraws, and an owner that was suspended for too long sees the higher number and stops (`check`).
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import stat
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path

from kdbench.errors import RunError
from kdbench.files import open_regular

HEARTBEAT = 10.0
"""Seconds between two touches by the owner."""
STALE = 120.0
"""Seconds without a touch after which an owner is presumed dead; on NFS, file attributes may be a minute old."""

_NAME = "lease."


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


_UNKNOWN = Owner("an unknown machine", "", "", 0, "")
_AT_MOST = 1 << 16
"""Bytes of a lease that are read; those that kdbench writes have a few hundred."""


class Held(RunError):
    """Another process has the lease.

    Attributes:
        owner: the process that holds the lease.
        touched: when it last touched its lease, by the clock of the file system.
    """

    def __init__(self, owner: Owner, touched: float):
        super().__init__(f"it is being done by {owner}")
        self.owner, self.touched = owner, touched


class Lost(RunError):
    """Another process has taken the lease over; this one must not write any more."""


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
        return f"{random.getrandbits(64)}", ""


def started(pid: int) -> str:
    """Start of a process of this machine in clock ticks since the boot; "" if there is no such process, or only a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


@dataclass(frozen=True)
class _LeaseFile:
    number: int
    owner: Owner
    touched: float
    now: float

    @property
    def is_live(self) -> bool:
        return self.now - self.touched < STALE and not self.owner.is_dead()


def _paths(folder: Path) -> dict[int, Path]:
    paths = {}
    for path in folder.glob(f"{_NAME}*"):
        with contextlib.suppress(ValueError):
            paths[int(path.name.removeprefix(_NAME))] = path
    return paths


def _read(folder: Path, now: float) -> list[_LeaseFile]:
    leases = []
    for number, path in _paths(folder).items():
        # Opening the file makes NFS fetch its attributes again; stat alone may answer from the cache.
        try:
            with open_regular(path) as file:
                content, touched = file.read(_AT_MOST), os.fstat(file.fileno()).st_mtime
        except FileNotFoundError:
            continue
        except OSError:
            content, touched = b"", _touched(path)
        leases.append(_LeaseFile(number, _owner(content), touched, now))
    return leases


def _owner(content: bytes) -> Owner:
    """The owner that a lease names; an unknown one where the file is damaged, so that only its age counts."""
    try:
        owner = Owner(**json.loads(content))
    except (ValueError, TypeError, RecursionError):
        return _UNKNOWN
    typed = all(type(getattr(owner, each.name)) is (int if each.type == "int" else str) for each in fields(Owner))
    return owner if typed and 0 <= owner.pid < 2**31 else _UNKNOWN


def _touched(path: Path) -> float:
    """Time of the last touch of a lease that may not be read; long ago for what cannot be a lease, such as a folder."""
    try:
        status = os.lstat(path)
    except OSError:
        return 0.0
    return status.st_mtime if stat.S_ISREG(status.st_mode) else 0.0


def _now(folder: Path) -> float:
    """The time by the file system's clock, which may differ from this machine's."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".clock.") as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:  # read-only or full
        return time.time()


def owner(folder: Path) -> Owner | None:
    """The process that does the run of `folder` now, or None. Writes nothing."""
    if not _paths(folder):
        return None
    owners = [each.owner for each in _read(folder, time.time()) if each.is_live]
    return owners[0] if owners else None


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
            Lost: another process has taken over the run.
        """
        numbers = _paths(self._folder)
        if self._number not in numbers or max(numbers) > self._number:
            raise Lost("another process has taken over this run, because this process stopped renewing its lease")

    def release(self) -> None:
        """Give the lease up, so that other processes can do the run."""
        self._end()
        for number, path in sorted(_paths(self._folder).items()):
            if number <= self._number and not path.is_dir():  # which would be no lease
                path.unlink(missing_ok=True)

    def withdraw(self) -> None:
        """Give up this lease only; another process holds a live one."""
        self._end()
        self._path.unlink(missing_ok=True)

    def _end(self) -> None:
        self._over.set()
        self._thread.join()

    def _keep(self) -> None:
        while not self._over.wait(HEARTBEAT):
            # A failure here (a lease taken over, an unreachable file system) shows in the owner's next `check`.
            with contextlib.suppress(OSError):
                os.utime(self._path)


def acquire(folder: Path) -> Lease:
    """Take the lease of the run in `folder`, which is created if it is missing.

    Raises:
        Held: another process holds it and may be alive.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for _ in range(4):
        leases = _read(folder, _now(folder))
        for each in leases:
            if each.is_live:
                raise Held(each.owner, each.touched)
        number = max((each.number for each in leases), default=0) + 1
        try:
            _create(folder / f"{_NAME}{number}")
        except FileExistsError:
            continue
        lease = Lease(folder, number)
        others = [each for each in _read(folder, _now(folder)) if each.number != number and each.is_live]
        if not others and max(_paths(folder)) == number:
            return lease
        lease.withdraw()
        time.sleep(random.uniform(0.05, 0.3))
    raise Held(
        Owner("another machine", "", "", 0, ""), 0.0
    )  # several processes collided four times: leave it to the others


def _create(path: Path) -> None:
    """Create a lease file; a process that reads it before its content is written sees a fresh lease of an unknown owner.

    Raises:
        FileExistsError: it exists.
    """
    with path.open("x", encoding="utf-8") as file:  # O_EXCL: the file server lets only one process create it
        try:
            json.dump(asdict(this_process()), file)
            file.flush()
        except OSError:
            path.unlink()
            raise
