"""Do runs one after the other. A process leases the run that it does, and leaves alone the runs that others have leased.

Either in this process (`work`), or as a program that `kdbench.launch.pool` starts: `python -m kdbench.launch.worker RUNS ID…`
reads its runs from the `spec.json` of their folders and reports what it does on standard output, one JSON object per line.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdbench.errors import RunError, file_and_reason
from kdbench.launch import display
from kdbench.plan.spec import Spec
from kdbench.store import lease
from kdbench.store.folder import CANCELLED, PROGRESS, SPEC, RunFolder
from kdbench.store.lease import Held, Lost

if TYPE_CHECKING:
    from kdbench.run.caller import Caller, Progress

LOOK = 1.0
"""Seconds between two checks of whether a run was cancelled, whether the parent lives, and of the runs of others."""


class Stop:
    """A request to stop, checked after every step: after a signal, after the parent's death, or if the run is cancelled.

    Args:
        parent: the process whose end also ends this one; None for a process that the user started.
    """

    def __init__(self, parent: int | None = None):
        self._parent = parent
        self._over = threading.Event()
        self._all = False
        self._one = False
        self._run: RunFolder | None = None

    def __call__(self) -> bool:
        return self._all or self._one

    @property
    def all(self) -> bool:
        """True if no further run may begin."""
        return self._all

    def everything(self, *signal_details: object) -> None:
        """Stop after the current step; as a signal handler, a user's second Ctrl-C ends the process at once."""
        # A worker gets two signals where SLURM signals all processes of a job, and the pool its workers.
        if self._all and signal_details and self._parent is None:
            raise KeyboardInterrupt
        self._all = True

    @contextmanager
    def watching(self, folder: RunFolder) -> Iterator[None]:
        """Inside the block, also stop if the run of `folder` is cancelled."""
        self._run, self._one = folder, False
        try:
            yield
        finally:
            self._run, self._one = None, False

    def __enter__(self) -> Stop:
        self._thread = threading.Thread(target=self._look, name="stop", daemon=True)
        self._thread.start()
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self.everything) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *details: object) -> None:
        self._over.set()
        self._thread.join()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _look(self) -> None:
        while not self._over.wait(LOOK):
            run = self._run
            if run is not None and (run / CANCELLED).exists():
                self._one = run is self._run
            # Under torchrun the parent process is not a direct parent.
            if self._parent is not None and os.getppid() != self._parent and not lease.started(self._parent):
                self._all = True


def work(
    specs: Sequence[Spec],
    runs: Path,
    data: Path | None,
    shown: display.Display,
    stop: Stop,
    do: Callable[..., dict[str, Any]] | None = None,
) -> None:
    """Do all of `specs` that are open, except runs of another living process; runs of a dead one are taken over.

    A run waits for its teachers, which are trained here unless another process trains them.

    Args:
        do: replaces `kdbench.run.execute.run`.

    Raises:
        OSError: the disk is full.
    """
    from kdbench.run.caller import Caller
    from kdbench.run.execute import run
    from kdbench.run.resume import Stopped  # imports torch, which the pool does not need

    do = do or run
    waiting = {spec.id: spec for spec in specs}
    heartbeats: dict[str, float] = {}
    while waiting and not stop.all:
        ended = False
        for spec in list(waiting.values()):
            folder = RunFolder(runs, spec.id)
            if stop.all:
                break
            if not folder.is_open():
                waiting.pop(spec.id, None)
                continue
            teachers = _missing_teachers(spec, runs)
            if teachers is None:
                waiting.pop(spec.id, None)
                continue
            if teachers:
                waiting = {**{teacher.id: teacher for teacher in teachers}, **waiting}
                continue
            try:
                with lease.acquire(folder.path) as held_lease, stop.watching(folder):
                    if folder.is_open():
                        shown.begin(spec)
                        report = _Reporter(spec, folder, shown)
                        shown.end(spec, do(spec, runs, data, Caller(report, stop, held_lease.check)))
                        ended = True
            except Held as error:
                # A new heartbeat shows that the owner lives; of processes on this machine it is known.
                if error.owner.is_here() or heartbeats.setdefault(spec.id, error.touched) != error.touched:
                    waiting.pop(spec.id, None)
                continue
            except (Stopped, Lost) as error:
                shown.left(spec, str(error) or "stopped; the next kdbench run resumes it")
            waiting.pop(spec.id, None)
        if waiting and not ended and not stop.all:
            time.sleep(LOOK)


def _missing_teachers(spec: Spec, runs: Path) -> list[Spec] | None:
    """The teachers of a run that have yet to end; None if one of them, or of theirs, was cancelled.

    A run whose teacher failed begins, and reports it.
    """
    missing = []
    for teacher in spec.teacher_runs:
        folder = RunFolder(runs, teacher)
        if (folder / CANCELLED).exists() and folder.state() == "absent":  # else it ended before it noticed
            return None
        plain = folder.read(SPEC)
        if plain is None or not folder.is_open():
            continue
        missing.append(Spec.from_plain(plain))
        if _missing_teachers(missing[-1], runs) is None:
            return None
    return missing


class _Reporter:
    """Passes the progress of a run to the display and to the run's folder."""

    def __init__(self, spec: Spec, folder: RunFolder, shown: display.Display):
        self._spec, self._folder, self._shown = spec, folder, shown
        self._last = 0.0

    def __call__(self, progress: Progress) -> None:
        self._shown.progress(self._spec, progress)
        now = time.time()
        if now - self._last >= LOOK:
            self._last = now
            self._folder.write(PROGRESS, {**asdict(progress), "at": now}, lasting=False)


class _Messages:
    """The display of a worker process: one JSON object per line on standard output, for the pool."""

    def __enter__(self) -> _Messages:
        return self

    def __exit__(self, *details: Any) -> None:
        pass

    def begin(self, spec: Spec) -> None:
        _send(event="begin", run=spec.id)

    def progress(self, spec: Spec, progress: Progress) -> None:
        _send(event="progress", run=spec.id, **asdict(progress))

    def end(self, spec: Spec, result: dict[str, Any]) -> None:
        _send(event="end", run=spec.id)

    def left(self, spec: Spec, why: str) -> None:
        _send(event="left", run=spec.id, why=why)


def _send(**message: Any) -> None:
    try:
        print(json.dumps(message), flush=True)
    except BrokenPipeError:  # the pool has died: `Stop` is about to notice, and the run must not fail because of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _work_in_group(specs: Sequence[Spec], runs: Path, data: Path | None, stop: Stop) -> None:
    """`work` in each process of a group: rank 0 leases the runs, and the other ranks follow it.

    After a failed run the ranks may be out of step; rank 0 then stops, which ends all of them.
    """
    from kdbench.run.caller import Caller
    from kdbench.run.execute import run
    from kdbench.run.group import Group
    from kdbench.run.resume import Stopped

    numbers = itertools.count()

    def lead(spec: Spec, runs: Path, data: Path | None, caller: Caller) -> dict[str, Any]:
        group.say(f"run {next(numbers)}", spec.id)
        result = run(spec, runs, data, replace(caller, group=group))
        if result["status"] == "failed":
            stop.everything()
        return result

    with Group.from_environment(specs[0].device) as group:
        if group.first:
            work(specs, runs, data, _Messages(), stop, lead)
            group.say(f"run {next(numbers)}", _NO_MORE)
            return
        while (id_ := group.hear(f"run {next(numbers)}")) != _NO_MORE:
            if os.environ["LOCAL_RANK"] == "0":  # on another node, whose pool gets no other message of the run
                _send(event="follow", run=id_)
            with contextlib.suppress(Stopped):
                run(Spec.from_plain(RunFolder(runs, id_).read(SPEC) or {}), runs, data, Caller(group=group))


_NO_MORE = "no more"


def main(words: Sequence[str] | None = None) -> int:
    """Entry point of the program; returns 0 if all runs that could be done are done, 1 if it stopped early."""
    parser = argparse.ArgumentParser(prog="python -m kdbench.launch.worker")
    parser.add_argument("runs", type=Path)
    parser.add_argument("ids", nargs="+")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--parent", type=int)
    arguments = parser.parse_args(words)
    specs = []
    for id_ in arguments.ids:
        plain = RunFolder(arguments.runs, id_).read(SPEC)
        if plain is None:
            raise RunError(f"there is no {SPEC} in the folder of {id_}")
        specs.append(Spec.from_plain(plain))
    several = int(os.environ.get("WORLD_SIZE", 1)) > 1
    with Stop(arguments.parent) as stop:
        try:
            if several:
                _work_in_group(specs, arguments.runs, arguments.data, stop)
            else:
                work(specs, arguments.runs, arguments.data, _Messages(), stop)
        except OSError as error:
            _send(event="over", why=full_disk(error, arguments.runs))
            return 1
    return int(stop.all)


def full_disk(error: OSError, runs: Path) -> str:
    """The sentence for a full disk; the message of any other error of the file system."""
    from kdbench.run.execute import is_full

    if is_full(error):
        return f"the disk of {runs} is full; finished runs are kept, and the same command resumes the rest once there is room"
    return file_and_reason(error)


if __name__ == "__main__":
    sys.exit(main())
