"""The program of a worker process, which `kdbench.launch.pool` starts: `python -m kdbench.launch.worker RUNS ID…`.

It reads its runs from the `spec.json` of their folders and reports what it does (`messages`).
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdbench.errors import RunError, file_and_reason, loading_torch
from kdbench.launch.messages import Messages, channel
from kdbench.launch.orphan import GRACE, is_orphan
from kdbench.launch.work import LOOK, work
from kdbench.output import lenient
from kdbench.plan.spec import Spec
from kdbench.store.folder import CANCELLED, SPEC, RunFolder

if TYPE_CHECKING:
    from kdbench.run.caller import Caller


class Stop:
    """A request to stop, checked after every step: after a signal, after the parent's death, or if the run is cancelled.

    Args:
        parent: the pool, whose end also ends this process; None for a process that the user started.
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

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside the block, SIGTERM ends the process: there is nothing to save yet, and a wait for others runs no handler."""
        handler = signal.signal(signal.SIGTERM, signal.SIG_DFL)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, handler)

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
            if run is not None and os.path.exists(run / CANCELLED):  # Path.exists raises where a file system fails
                self._one = run is self._run
            if self._parent is not None and is_orphan(self._parent):
                os.kill(os.getpid(), signal.SIGTERM)  # as the pool would do
                if not self._over.wait(GRACE):
                    os.kill(os.getpid(), signal.SIGKILL)
                return


def _work_in_group(
    specs: Sequence[Spec], runs: Path, data: Path | None, messages: Messages, stop: Stop, wait: bool
) -> None:
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

    with contextlib.ExitStack() as stack:
        with stop.at_once():
            group = stack.enter_context(Group.from_environment(specs[0].device))
        if os.environ["LOCAL_RANK"] == "0":
            messages.send(event="ready")
        if group.first:
            work(specs, runs, data, messages, stop, lead, wait)
            group.say(f"run {next(numbers)}", _NO_MORE)
            return
        while (id_ := group.hear(f"run {next(numbers)}")) != _NO_MORE:
            if os.environ["LOCAL_RANK"] == "0":  # on another node, whose pool gets no other message of the run
                messages.send(event="follow", run=id_)
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
    messages = Messages(channel())
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
            with stop.at_once(), loading_torch():
                import kdbench.run.execute  # noqa: F401
            if several:
                _work_in_group(specs, arguments.runs, arguments.data, messages, stop, arguments.wait)
            else:
                messages.send(event="ready")
                work(specs, arguments.runs, arguments.data, messages, stop, wait=arguments.wait)
        except OSError as error:
            messages.send(event="over", why=full_disk(error, arguments.runs))
            return 1
        except RunError as error:
            messages.send(event="over", why=str(error))
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
