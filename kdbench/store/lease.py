"""Leases: only one process at a time does a run, across all machines that share the folder.

A lease is a file `lease.N` in the run's folder. It is created exclusively (O_EXCL) and touched every `HEARTBEAT` seconds.
If its owner is known to be dead, or it was not touched for `STALE` seconds, another process takes over by creating
`lease.N+1`; no process renames or deletes a file of another one. A process that sees a live lease next to its own
withdraws, and an owner that was suspended for too long sees a higher number that stays and stops (`check`).

The age of a lease is the difference of two times of the file system's clock, because clocks of machines differ.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import stat
import tempfile
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from kdbench.errors import RunError
from kdbench.files import open_regular
from kdbench.store.owner import Owner, this_process

HEARTBEAT = 10.0
"""Seconds between two touches by the owner."""
STALE = 120.0
"""Seconds without a touch after which an owner is presumed dead; on NFS, file attributes may be a minute old."""

WATCH = 1.5 * HEARTBEAT
"""Seconds to wait for a touch by an owner whose lease's age cannot be determined."""

WITHDRAWAL = 1.0
"""Seconds within which a process withdraws that has taken a higher number next to a live lease."""

_NAME = "lease."
_random = random.Random()  # not the global generator, which a run seeds


_UNKNOWN = Owner("an unknown machine", "", "", 0, "")
_AT_MOST = 1 << 16
"""Bytes of a lease that are read; those that kdbench writes have a few hundred."""


class Held(RunError):
    """Another process has the lease.

    Attributes:
        owner: the process that holds the lease.
        touched: when it last touched its lease, by the clock of the file system.
        remaining: seconds until it is taken for dead, unless it touches its lease again.
    """

    def __init__(self, owner: Owner, touched: float, remaining: float):
        super().__init__(f"it is being done by {owner}")
        self.owner, self.touched, self.remaining = owner, touched, remaining


class Lost(RunError):
    """The lease was taken over or removed; this process must not write any more."""


@dataclass(frozen=True)
class _LeaseFile:
    number: int
    owner: Owner
    touched: float
    now: float

    @property
    def age(self) -> float:
        return self.now - self.touched

    @property
    def is_live(self) -> bool:
        return self.age < STALE and not self.owner.is_dead()


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


def clock(folder: Path) -> float | None:
    """The time by the clock of the file system of `folder`; None where this process cannot write."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".clock.") as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return None


def now(folder: Path) -> float:
    """The time by the clock of the file system of `folder`; by this machine's where this process cannot write."""
    at = clock(folder)
    return time.time() if at is None else at


def owner(folder: Path) -> Owner | None:
    """The process that does the run of `folder` now, or None; see `owners`."""
    return owners([folder]).get(folder)


def owners(folders: Iterable[Path]) -> dict[Path, Owner]:
    """The processes that do the runs of some folders now; a folder whose run no process does is left out.

    In a folder that this process cannot write to, the file system's clock is unknown, and a lease that looks too old or too
    new is watched for `WATCH` seconds: an owner that lives touches it.
    """
    owners_: dict[Path, Owner] = {}
    watched: dict[Path, dict[int, float]] = {}
    for folder in folders:
        if not _paths(folder):
            continue
        at = clock(folder)
        leases = _newest_first(_read(folder, time.time() if at is None else at))
        live = [each for each in leases if each.is_live and (at is not None or each.age >= 0)]
        if at is None and not live:
            live = [each for each in leases if each.owner.is_awake()]
            if not live and (alive := [each for each in leases if not each.owner.is_dead()]):
                watched[folder] = {each.number: each.touched for each in alive}
        if live:
            owners_[folder] = live[0].owner
    if watched:
        time.sleep(WATCH)
    for folder, touched in watched.items():
        moved = [each for each in _newest_first(_read(folder, 0.0)) if touched.get(each.number) != each.touched]
        if moved:
            owners_[folder] = moved[0].owner
    return owners_


def _newest_first(leases: Iterable[_LeaseFile]) -> list[_LeaseFile]:
    return sorted(leases, key=lambda each: -each.number)


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
        """Call before writing; returns at once unless another process has a higher number.

        Raises:
            Lost: another process has taken over the run, or the lease or its folder was removed.
        """
        until = time.monotonic() + WITHDRAWAL
        while max(numbers := _paths(self._folder), default=0) > self._number:
            if time.monotonic() > until:
                raise Lost("another process has taken over this run, because this process stopped renewing its lease")
            time.sleep(WITHDRAWAL / 20)
        if self._number not in numbers:
            removed = "its lease" if self._folder.is_dir() else "its folder"
            raise Lost(f"stopped, because {removed} was removed")

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
        leases = _read(folder, now(folder))
        for each in leases:
            if each.is_live:
                raise Held(each.owner, each.touched, STALE - each.age)
        number = max((each.number for each in leases), default=0) + 1
        try:
            _create(folder / f"{_NAME}{number}")
        except FileExistsError:
            continue
        lease = Lease(folder, number)
        others = [each for each in _read(folder, now(folder)) if each.number != number and each.is_live]
        if not others and max(_paths(folder)) == number:
            return lease
        lease.withdraw()
        time.sleep(_random.uniform(0.05, 0.3))
    # Several processes collided four times: leave it to the others.
    raise Held(Owner("another machine", "", "", 0, ""), 0.0, STALE)


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
