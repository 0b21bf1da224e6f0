"""The program of a worker process, which `kdbench.launch.pool` starts: `python -m kdbench.launch.worker RUNS ID…`.

It reads its runs from the `spec.json` of their folders and reports what it does on standard output, one JSON object per line.
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdbench.errors import RunError
from kdbench.launch.work import LOOK, work
from kdbench.output import lenient
from kdbench.plan.spec import Spec
from kdbench.store.folder import CANCELLED, SPEC, RunFolder
from kdbench.store.owner import started

if TYPE_CHECKING:
    from kdbench.run.caller import Caller, Progress


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
            if self._parent is not None and os.getppid() != self._parent and not started(self._parent):
                self._all = True


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

    def waits(self, spec: Spec, why: str) -> None:
        _send(event="waits", run=spec.id, why=why)


def _send(**message: Any) -> None:
    try:
        print(json.dumps(message), flush=True)
    except BrokenPipeError:  # the pool has died: `Stop` is about to notice, and the run must not fail because of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _work_in_group(specs: Sequence[Spec], runs: Path, data: Path | None, stop: Stop, wait: bool) -> None:
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
            work(specs, runs, data, _Messages(), stop, lead, wait)
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
    parser.add_argument("--wait", action="store_true")
    arguments = parser.parse_args(words)
    specs = []
    for folder in (RunFolder(arguments.runs, id_) for id_ in arguments.ids):
        plain = folder.read(SPEC)
        if plain is None and not folder.path.is_dir():  # removed since the plan
            continue
        if plain is None:
            raise RunError(f"there is no {SPEC} in {folder.path}")
        specs.append(Spec.from_plain(plain))
    if not specs:
        return 0
    several = int(os.environ.get("WORLD_SIZE", 1)) > 1
    with lenient(), Stop(arguments.parent) as stop:
        try:
            if several:
                _work_in_group(specs, arguments.runs, arguments.data, stop, arguments.wait)
            else:
                work(specs, arguments.runs, arguments.data, _Messages(), stop, wait=arguments.wait)
        except OSError as error:
            _send(event="over", why=full_disk(error, arguments.runs))
            return 1
    return int(stop.all)


def full_disk(error: OSError, runs: Path) -> str:
    """The sentence for a full disk; the message of any other error of the file system."""
    from kdbench.run.execute import is_full

    if is_full(error):
        return f"the disk of {runs} is full; finished runs are kept, and the same command resumes the rest once there is room"
    return str(error)


if __name__ == "__main__":
    sys.exit(main())
