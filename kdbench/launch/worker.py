"""Doing runs one after the other: what a process takes up is leased, and what others do is left to them.

In this process (`work`), or as a program of its own that `kdbench.launch.pool` starts: `python -m kdbench.launch.worker RUNS ID…`
takes its runs from the `spec.json` of their folders and tells on standard output what it does, one JSON object a line.
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

from kdbench.errors import RunError
from kdbench.launch import display
from kdbench.plan.spec import Spec
from kdbench.store import lease
from kdbench.store.folder import CANCELLED, PROGRESS, SPEC, RunFolder
from kdbench.store.lease import Held, Lost

if TYPE_CHECKING:
    from kdbench.run.bookkeeping import Progress
    from kdbench.run.prepare import Caller

LOOK = 1.0
"""Seconds between two looks at whether a run was cancelled, whether the parent lives, and at what others do."""


class Stop:
    """Whether to stop, asked after every step: by a signal, because the parent is no more, or because the run was cancelled.

    Args:
        parent: the process whose end ends this one too; None for a process that the user started.
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
        """Whether no further run is to begin."""
        return self._all

    def everything(self, *signal_details: object) -> None:
        """Stop after the step that is going on; as a signal's handler, a user's second Ctrl-C ends the process at once."""
        # A worker is told twice where SLURM signals all processes of a job and the pool its workers.
        if self._all and signal_details and self._parent is None:
            raise KeyboardInterrupt
        self._all = True

    @contextmanager
    def watching(self, folder: RunFolder) -> Iterator[None]:
        """Inside, stop also when the run of `folder` is cancelled."""
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
            # Under torchrun the process that watches over this one is no direct parent.
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
    """Do all of `specs` that are open; what another living process does is left to it, what a dead one left is taken over.

    A run waits for its teacher, whoever trains it; a teacher that nobody trains is trained here.

    Args:
        do: in the place of `kdbench.run.execute.run`.

    Raises:
        OSError: the disk is full.
    """
    from kdbench.run.execute import run
    from kdbench.run.prepare import Caller
    from kdbench.run.resume import Stopped  # torch, which a pool of processes has no use for

    do = do or run
    waiting = {spec.id: spec for spec in specs}
    held: dict[str, float] = {}
    while waiting and not stop.all:
        ended = False
        for spec in list(waiting.values()):
            folder = RunFolder(runs, spec.id)
            if stop.all:
                break
            if not folder.is_open():
                waiting.pop(spec.id, None)
                continue
            if spec.teacher_run and not _teacher_has_ended(spec.teacher_run, runs, waiting):
                continue
            try:
                with lease.acquire(folder.path) as held_lease, stop.watching(folder):
                    if folder.is_open():
                        shown.begin(spec)
                        report = _Reporter(spec, folder, shown)
                        shown.end(spec, do(spec, runs, data, Caller(report, stop, held_lease.check)))
                        ended = True
            except Held as error:
                # A heartbeat that moves is life; a process on this machine is known to live.
                if error.owner.is_here() or held.setdefault(spec.id, error.touched) != error.touched:
                    waiting.pop(spec.id, None)
                continue
            except (Stopped, Lost) as error:
                shown.left(spec, str(error) or "stopped; it goes on from here the next time")
            waiting.pop(spec.id, None)
        if waiting and not ended and not stop.all:
            time.sleep(LOOK)


def _teacher_has_ended(teacher: str, runs: Path, waiting: dict[str, Spec]) -> bool:
    """Whether a run can begin (if its teacher failed it says so); a teacher that is open is put among what is to be done.

    A cancelled teacher's students are not: they go out of `waiting`.
    """
    folder = RunFolder(runs, teacher)
    if (folder / CANCELLED).exists() and folder.state() == "absent":  # else it ended before it heard of that
        for id_ in [spec.id for spec in waiting.values() if spec.teacher_run == teacher]:
            del waiting[id_]
        return False
    known = folder.read(SPEC)
    if known is None or not folder.is_open():
        return True
    waiting.setdefault(teacher, Spec(**known))
    return False


class _Reporter:
    """Tells the display and the run's folder where the run is."""

    def __init__(self, spec: Spec, folder: RunFolder, shown: display.Display):
        self._spec, self._folder, self._shown = spec, folder, shown
        self._last = 0.0

    def __call__(self, progress: Progress) -> None:
        self._shown.progress(self._spec, progress)
        now = time.time()
        if now - self._last >= LOOK:
            self._last = now
            self._folder.write(PROGRESS, {**asdict(progress), "at": now}, lasting=False)


class _Teller:
    """The display of a worker process: one JSON object a line on standard output, for the pool."""

    def __enter__(self) -> _Teller:
        return self

    def __exit__(self, *details: Any) -> None:
        pass

    def begin(self, spec: Spec) -> None:
        _tell(event="begin", run=spec.id)

    def progress(self, spec: Spec, progress: Progress) -> None:
        _tell(event="progress", run=spec.id, **asdict(progress))

    def end(self, spec: Spec, result: dict[str, Any]) -> None:
        _tell(event="end", run=spec.id)

    def left(self, spec: Spec, why: str) -> None:
        _tell(event="left", run=spec.id, why=why)


def _tell(**message: Any) -> None:
    try:
        print(json.dumps(message), flush=True)
    except BrokenPipeError:  # the pool is no more: `Stop` is about to find that, and the run is not to fail by it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _together(specs: Sequence[Spec], runs: Path, data: Path | None, stop: Stop) -> None:
    """The same in each process of a group: the first takes up runs, and the others do with it what it says.

    After a run that failed they may no longer be in step: the first one stops then, which ends all of them.
    """
    from kdbench.run.execute import run
    from kdbench.run.group import Group
    from kdbench.run.prepare import Caller
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
            work(specs, runs, data, _Teller(), stop, lead)
            group.say(f"run {next(numbers)}", _NO_MORE)
            return
        while (id_ := group.hear(f"run {next(numbers)}")) != _NO_MORE:
            if os.environ["LOCAL_RANK"] == "0":  # of another node, whose pool hears nothing else of the run
                _tell(event="follow", run=id_)
            with contextlib.suppress(Stopped):
                run(Spec(**(RunFolder(runs, id_).read(SPEC) or {})), runs, data, Caller(group=group))


_NO_MORE = "no more"


def main(words: Sequence[str] | None = None) -> int:
    """Entry point of the program; 0: all is done that could be, 1: stopped, or told why it is over."""
    parser = argparse.ArgumentParser(prog="python -m kdbench.launch.worker")
    parser.add_argument("runs", type=Path)
    parser.add_argument("ids", nargs="+")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--parent", type=int)
    arguments = parser.parse_args(words)
    specs = []
    for id_ in arguments.ids:
        known = RunFolder(arguments.runs, id_).read(SPEC)
        if known is None:
            raise RunError(f"there is no {SPEC} in the folder of {id_}")
        specs.append(Spec(**known))
    several = int(os.environ.get("WORLD_SIZE", 1)) > 1
    with Stop(arguments.parent) as stop:
        try:
            if several:
                _together(specs, arguments.runs, arguments.data, stop)
            else:
                work(specs, arguments.runs, arguments.data, _Teller(), stop)
        except OSError as error:
            _tell(event="over", why=full_disk(error, arguments.runs))
            return 1
    return int(stop.all)


def full_disk(error: OSError, runs: Path) -> str:
    """The sentence for a full disk; other errors of the file system speak for themselves."""
    from kdbench.run.execute import is_full

    if is_full(error):
        return f"the disk of {runs} is full; nothing finished is lost, and the same command goes on once there is room"
    return str(error)


if __name__ == "__main__":
    sys.exit(main())
