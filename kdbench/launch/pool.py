"""Several worker processes on this machine, one for each GPU or each share of the CPU; the local queue, and a SLURM job.

The pool starts them (`kdbench.launch.worker`), hears what they do, and starts another one where one was killed. It trains nothing
and imports no torch, so that a run that takes its process down takes nothing else with it.
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
"""How often a run may take its process down without getting further before it counts as failed."""
GRACE = 60.0
"""Seconds that workers get to keep their state when they are asked to stop."""
TAIL = 20
"""Lines of a killed worker's error output that go into the run's log."""


@dataclass
class _Worker:
    process: subprocess.Popen[str]
    number: int
    errors: deque[str]
    run: str | None = None
    images: int = 0


class Pool:
    """Workers that do runs together.

    Args:
        specs: the runs; their folders hold them already (`RunFolder.ask`).
        environments: of each worker, what it has beyond this process's: its GPU, its threads.
        launcher: what `python -m` starts, to start several processes of `-m kdbench.launch.worker` in its turn.
    """

    def __init__(
        self,
        specs: Sequence[Spec],
        runs: Path,
        data: Path | None,
        shown: Display,
        environments: Sequence[Mapping[str, str]] = ({},),
        launcher: Sequence[str] = (),
    ):
        self._specs = {spec.id: spec for spec in specs}
        self._runs, self._data, self._shown = runs, data, shown
        self._environments = environments
        self._launcher = [sys.executable, "-m", *launcher]
        self._messages: queue.SimpleQueue[tuple[_Worker, str | None]] = queue.SimpleQueue()
        self._workers: list[_Worker] = []
        self._strikes: Counter[str] = Counter()
        self._furthest: Counter[str] = Counter()
        self._stopping = False
        self._over = ""

    def run(self) -> None:
        """Do the runs; returns when no worker is left.

        Raises:
            RunError: a worker says why no other can do better, or falls again and again without a run in hand.
        """
        for number in range(min(len(self._environments), len(self._specs))):
            self._start(number)
        while self._workers:
            try:
                worker, line = self._messages.get(timeout=1.0)
            except queue.Empty:
                continue
            if line is not None:
                self._hear(worker, line)
                continue
            # Not without a timeout: that would hold a lock which `stop`, called by a signal's handler, needs.
            status = worker.process.wait(threading.TIMEOUT_MAX)
            self._workers.remove(worker)
            if status and not self._stopping:
                self._struck(worker, status)
                if self._open() and not self._stopping:
                    self._start(worker.number)
        if self._over:
            raise RunError(self._over)

    def stop(self) -> None:
        """Ask all workers to keep their state and end, and wait for it; whoever does not within `GRACE` is killed."""
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
        # SLURM signals every process of a job. What a user signal means is for this one to say; a worker would die of it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGUSR1, signal.SIGUSR2))
        try:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, **self._environments[number]},
                start_new_session=True,  # Ctrl-C comes here, and from here to the workers
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

    def _hear(self, worker: _Worker, line: str) -> None:
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
        elif event == "follow":
            self._strikes[""] = 0
        elif event == "end":
            worker.run = None
            self._strikes[""] = 0
            self._shown.end(spec, RunFolder(self._runs, spec.id).result() or {"status": "failed", "error": "no result"})

    def _spec(self, id_: str) -> Spec:
        """Of a run of this pool, or of the teacher that a worker took up with it."""
        if id_ not in self._specs:
            self._specs[id_] = Spec(**(RunFolder(self._runs, id_).read(SPEC) or {}))
        return self._specs[id_]

    def _struck(self, worker: _Worker, status: int) -> None:
        """A worker was killed, or fell: its run goes on in another one, but not for ever."""
        how = f"killed by signal {-status}" if status < 0 else f"ended with status {status}"
        if worker.run is None:
            self._strikes[""] += 1
            if self._strikes[""] >= STRIKES:
                self._over = "\n".join([f"a worker was {how} before it began a run, {STRIKES} times", *worker.errors])
                self.stop()
            return
        spec, folder = self._specs[worker.run], RunFolder(self._runs, worker.run)
        if worker.images > self._furthest[spec.id]:  # further than ever: not the run's own doing, so far
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
