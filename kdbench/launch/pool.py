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
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from kdbench.errors import RunError
from kdbench.launch.display import Display
from kdbench.plan.spec import Spec
from kdbench.store import lease
from kdbench.store.folder import SPEC, RunFolder

STRIKES = 3
"""How often a run may crash its process without progress before it counts as failed."""
GRACE = 60.0
"""Seconds that workers get to save their state when they are asked to stop."""
TAIL = 20
"""Lines of a killed worker's standard error that go to the run's log."""


@dataclass
class _Worker:
    process: subprocess.Popen[str]
    number: int
    errors: deque[str]
    run: str | None = None
    images: int = 0


class Pool:
    """Workers that share a list of runs.

    Args:
        specs: the runs; `backlog.enqueue` has written them to their folders.
        environments: environment variables of each worker, in addition to this process's: its GPU, its threads.
        wait: workers also wait for the runs of processes that are not of this pool.
        launcher: words after `python -m` that start several processes of `-m kdbench.launch.worker` for each worker.
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
        self._environments = environments
        self._wait = wait
        self._launcher = [sys.executable, "-m", *launcher]
        self._messages: queue.SimpleQueue[tuple[_Worker, str | None]] = queue.SimpleQueue()
        self._workers: list[_Worker] = []
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
            try:
                worker, line = self._messages.get(timeout=1.0)
            except queue.Empty:
                continue
            if line is not None:
                self._handle(worker, line)
                continue
            # Without a timeout, wait() holds a lock that `stop`, called by a signal handler, needs.
            status = worker.process.wait(threading.TIMEOUT_MAX)
            self._workers.remove(worker)
            if status and not self._stopping:
                self._crashed(worker, status)
                if self._open() and not self._stopping:
                    self._start(worker.number)
        if self._over:
            raise RunError(self._over)

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
        words = [*self._launcher, "kdbench.launch.worker", str(self._runs), *self._open(), f"--parent={os.getpid()}"]
        if self._data:
            words.append(f"--data={self._data}")
        if self._wait:
            words.append("--wait")
        # SLURM sends user signals to every process of a job. Only this one handles them; they would kill a worker.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGUSR1, signal.SIGUSR2))
        try:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, **self._environments[number]},
                start_new_session=True,  # Ctrl-C reaches this process only, which stops the workers
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        worker = _Worker(process, number, deque(maxlen=TAIL))
        self._workers.append(worker)
        threading.Thread(target=self._read_errors, args=(worker,), daemon=True).start()
        threading.Thread(target=self._read, args=(worker,), daemon=True).start()

    def _read(self, worker: _Worker) -> None:
        assert worker.process.stdout is not None
        for line in worker.process.stdout:
            self._messages.put((worker, line))
        self._messages.put((worker, None))

    def _read_errors(self, worker: _Worker) -> None:
        assert worker.process.stderr is not None
        for line in worker.process.stderr:
            worker.errors.append(line.rstrip("\n"))

    def _handle(self, worker: _Worker, line: str) -> None:
        try:
            message = json.loads(line)
            event = message.pop("event")
            if event == "over":
                self._over = message["why"]
                self.stop()
                return
            spec = self._spec(message.pop("run"))
        except (ValueError, KeyError, AttributeError):
            worker.errors.append(line.rstrip("\n"))  # a method that prints
            return
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
        elif event == "follow":
            self._strikes[""] = 0
        elif event == "end":
            worker.run = None
            self._strikes[""] = 0
            self._shown.end(spec, RunFolder(self._runs, spec.id).result() or {"status": "failed", "error": "no result"})

    def _spec(self, id_: str) -> Spec:
        """The spec of a run of this pool, or of a teacher that a worker trains in addition."""
        if id_ not in self._specs:
            self._specs[id_] = Spec.from_plain(RunFolder(self._runs, id_).read(SPEC) or {})
        return self._specs[id_]

    def _crashed(self, worker: _Worker, status: int) -> None:
        """Handle a worker that was killed or crashed: another one resumes its run, but only `STRIKES` times."""
        how = f"killed by signal {-status}" if status < 0 else f"ended with status {status}"
        if worker.run is None:
            self._strikes[""] += 1
            if self._strikes[""] >= STRIKES:
                self._over = "\n".join([f"a worker was {how} before it began a run, {STRIKES} times", *worker.errors])
                self.stop()
            return
        spec, folder = self._specs[worker.run], RunFolder(self._runs, worker.run)
        if not folder.path.is_dir():  # removed meanwhile
            return
        if worker.images > self._furthest[spec.id]:  # progress: so far the crash need not be the run's fault
            self._furthest[spec.id], self._strikes[spec.id] = worker.images, 0
        self._strikes[spec.id] += 1
        folder.log("\n".join([f"the process of this run was {how}", *worker.errors]))
        self._shown.left(spec, f"its process was {how}")
        if self._strikes[spec.id] < STRIKES:
            return
        error = f"its process was {how}, {STRIKES} times; see log.txt in its folder"
        with contextlib.suppress(lease.Held), lease.acquire(folder.path):
            result = {**spec.identity(), "status": "failed", "error": error}
            folder.finish(result)
            self._shown.end(spec, result)
