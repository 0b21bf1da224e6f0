"""Several worker processes on this machine, one per GPU or per share of the CPU; for executor=local and inside SLURM jobs.

The pool starts them (`kdbench.launch.worker`), reads their messages, and replaces a worker that was killed. It does not train
and imports no torch, so that a run that crashes its process affects no other run.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from kdbench.errors import RunError, UserError, memory_limit
from kdbench.launch import worker_process
from kdbench.launch.display import Display
from kdbench.launch.orphan import GRACE
from kdbench.launch.worker_process import Inbox, WorkerProcess
from kdbench.plan.spec import Spec
from kdbench.store import lease
from kdbench.store.folder import SPEC, RunFolder

STRIKES = 3
"""How often a run may crash its process without progress before it counts as failed."""
SILENCE = 60.0
"""Seconds without a message of a worker that starts, after which its output is shown, and again after as many."""


class Pool:
    """Workers that share a list of runs.

    Args:
        specs: the runs; `backlog.enqueue` has written them to their folders.
        environments: environment variables of each worker, in addition to this process's: its GPU, its threads.
        launcher: words for torchrun, which starts several processes for each worker; none for a single one.
        wait: workers also wait for the runs of processes that are not of this pool.
    """

    def __init__(
        self,
        specs: Sequence[Spec],
        runs: Path,
        data: Path | None,
        shown: Display,
        environments: Sequence[Mapping[str, str]] = ({},),
        launcher: Sequence[str] = (),
        wait: bool = False,
    ):
        self._specs = {spec.id: spec for spec in specs}
        self._runs, self._data, self._shown = runs, data, shown
        self._environments, self._launcher, self._wait = environments, launcher, wait
        self._inbox: Inbox = queue.SimpleQueue()
        self._workers: list[WorkerProcess] = []
        self._shown_at: dict[WorkerProcess, float] = {}
        self._ended_at: dict[WorkerProcess, float] = {}
        self._strikes: Counter[str] = Counter()
        self._furthest: Counter[str] = Counter()
        self._awaited: set[str] = set()
        self._stopping = False
        self._over = ""

    def run(self) -> None:
        """Do the runs; returns when no worker is left.

        Raises:
            RunError: a worker reports an error that would hit all of them, or workers crash repeatedly before they begin a run.
        """
        for number in range(min(len(self._environments), len(self._specs))):
            self._start(number)
        while self._workers:
            self._show_silent()
            self._give_up_channels()
            try:
                worker, message = self._inbox.get(timeout=1.0)
            except queue.Empty:
                continue
            if isinstance(message, bytes):
                self._handle(worker, message)
            elif message is not None:
                self._end(f"the output of a worker cannot be read: {message}")
            elif worker in self._workers:
                self._ended(worker)
        if self._over:
            raise RunError(self._over)

    def _show_silent(self) -> None:
        """Show the output of workers that have been starting for long: they may wait for something that never comes."""
        now = time.monotonic()
        for worker in self._workers:
            if worker.is_ready or now - self._shown_at.get(worker, worker.began) < SILENCE:
                continue
            self._shown_at[worker] = now
            output = "; its output ends with:" if worker.tail else ""
            since = f"a worker has been starting for {now - worker.began:.0f} seconds{output}"
            self._shown.note("\n".join([since, *worker.tail]))

    def _give_up_channels(self) -> None:
        """Handle workers that have ended, although a process that they forked still has their channel open."""
        for worker in [each for each in self._workers if each.has_ended()]:
            if time.monotonic() - self._ended_at.setdefault(worker, time.monotonic()) > GRACE:
                self._ended(worker)

    def _ended(self, worker: WorkerProcess) -> None:
        # Without a timeout, wait() holds a lock that `stop`, called by a signal handler, needs.
        status = worker.process.wait(threading.TIMEOUT_MAX)
        self._workers.remove(worker)
        if status and not self._stopping:
            self._crashed(worker, status)
            if self._open() and not self._stopping:
                self._start(worker.number)

    def _end(self, why: str) -> None:
        """Stop all workers because of an error that no other worker would escape."""
        self._over = why
        self.stop()

    def stop(self) -> None:
        """Ask all workers to save their state and exit, and wait; those that still run after `GRACE` seconds are killed."""
        self._stopping = True
        for worker in self._workers:
            with contextlib.suppress(ProcessLookupError):
                worker.process.send_signal(signal.SIGTERM)
        end = time.monotonic() + GRACE
        for worker in self._workers:
            try:
                worker.process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()

    def _open(self) -> list[str]:
        return [id_ for id_ in self._specs if RunFolder(self._runs, id_).is_open()]

    def _start(self, number: int) -> None:
        words = [str(self._runs), *self._open(), f"--parent={os.getpid()}"]
        if self._data:
            words.append(f"--data={self._data}")
        if self._wait:
            words.append("--wait")
        started = worker_process.start(words, self._launcher, self._environments[number], number, self._inbox)
        self._workers.append(started)

    def _handle(self, worker: WorkerProcess, line: bytes) -> None:
        if not line.strip():
            return
        try:
            message = json.loads(line)
            event = message.pop("event")
            spec = self._spec(message.pop("run")) if "run" in message else None
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError, UserError):
            # It is torchrun's own, or from before the worker took over its output.
            worker.tail.append(worker_process.as_text(line))
            return
        worker.is_ready = True
        if event == "over":
            self._end(message["why"])
        elif event == "follow":
            self._strikes[""] = 0
        elif spec:
            self._show(worker, event, spec, message)

    def _show(self, worker: WorkerProcess, event: str, spec: Spec, message: dict[str, Any]) -> None:
        if event == "begin":
            worker.run, worker.images = spec.id, 0
            self._shown.begin(spec)
        elif event == "progress":
            worker.images = message["images"]
            self._shown.progress(spec, cast(Any, SimpleNamespace(**message)))
        elif event == "left":
            worker.run = None
            self._shown.left(spec, message["why"])
        elif event == "waits":
            # A run that another worker of this pool does needs no line.
            if spec.id not in self._awaited and not any(each.run == spec.id for each in self._workers):
                self._awaited.add(spec.id)
                self._shown.waits(spec, message["why"])
        elif event == "end":
            worker.run = None
            self._strikes[""] = 0
            self._shown.end(spec, RunFolder(self._runs, spec.id).result() or {"status": "failed", "error": "no result"})

    def _spec(self, id_: str) -> Spec:
        """The spec of a run of this pool, or of a teacher that a worker trains in addition."""
        if id_ not in self._specs:
            self._specs[id_] = Spec.from_plain(RunFolder(self._runs, id_).read(SPEC) or {})
        return self._specs[id_]

    def _crashed(self, worker: WorkerProcess, status: int) -> None:
        """Handle a worker that was killed or crashed: another one resumes its run, but only `STRIKES` times."""
        how = worker.ending(status)
        if worker.run is None:
            self._strikes[""] += 1
            if self._strikes[""] >= STRIKES:
                first = f"a worker was {how} before it began a run, {STRIKES} times{memory_limit()}"
                self._end("\n".join([first, *worker.tail]))
            return
        spec, folder = self._specs[worker.run], RunFolder(self._runs, worker.run)
        if not folder.path.is_dir():  # removed meanwhile
            return
        if worker.images > self._furthest[spec.id]:  # progress: so far the crash need not be the run's fault
            self._furthest[spec.id], self._strikes[spec.id] = worker.images, 0
        self._strikes[spec.id] += 1
        folder.log("\n".join([f"the process of this run was {how}", *worker.tail]))
        self._shown.left(spec, f"its process was {how}")
        if self._strikes[spec.id] < STRIKES:
            return
        error = f"its process was {how}, {STRIKES} times; see log.txt in its folder"
        with contextlib.suppress(lease.Held), lease.acquire(folder.path):
            result = {**spec.identity(), "status": "failed", "error": error}
            folder.finish(result)
            self._shown.end(spec, result)
