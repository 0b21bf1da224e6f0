"""Do runs on this machine: one after the other in this process, or in several worker processes."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kdbench.data.readers import registry
from kdbench.errors import RunError, UserError
from kdbench.launch import display, pool, worker
from kdbench.launch.backlog import enqueue, results
from kdbench.launch.gpus import launcher, shares
from kdbench.launch.work import work
from kdbench.output import lenient
from kdbench.plan.spec import Spec


def inline(
    specs: Sequence[Spec], runs: Path, data: Path | None, rerun: bool = False, wait: bool = False
) -> list[dict[str, Any]]:
    """Do runs one after the other in this process and show their progress; a failed run does not stop the others.

    Args:
        wait: also wait for the runs of other processes, and take over those whose lease goes stale.

    Returns:
        Their results, in order; a run that was cancelled, removed, or left to another process has none
        (`kdbench.launch.unfinished`).

    Raises:
        KeyboardInterrupt: the user interrupted it; the run that was training has saved its state.
        RunError: the disk is full.
    """
    enqueue(specs, runs, rerun)
    with lenient(), display.for_terminal(specs, runs) as shown, worker.Stop() as stop:
        try:
            work(specs, runs, data, shown, stop, wait=wait)
        except OSError as error:
            raise RunError(worker.full_disk(error, runs)) from error
    if stop.all:
        raise KeyboardInterrupt
    return results(specs, runs)


def local(
    specs: Sequence[Spec],
    runs: Path,
    data: Path | None,
    workers: int | None,
    rerun: bool = False,
    wait: bool = False,
    runs_per_gpu: int = 1,
) -> list[dict[str, Any]]:
    """Do runs in several worker processes, each with its own GPUs or its share of the CPU's threads.

    Args:
        workers: number of processes; None for `runs_per_gpu` per GPU (or one, without GPUs).
        wait: as for `inline`.

    Returns:
        As `inline`.

    Raises:
        KeyboardInterrupt: the user interrupted it; the processes have saved their state.
        RunError: the disk is full, or no process can be started.
        UserError: this machine has GPUs, but fewer than a run needs, or its system is not Linux.
    """
    if sys.platform != "linux":
        raise UserError("several processes at a time (workers=, gpus=) need Linux; leave these words out")
    gpus = max(spec.gpus for spec in specs)
    environments = shares(workers, gpus, runs_per_gpu)
    enqueue(specs, runs, rerun)
    registry.read_once.cache_clear()  # the images that the plan has read: the workers read their own
    with lenient(), display.for_terminal(specs, runs) as shown, _terminated_like_interrupted():
        processes = pool.Pool(specs, runs, data, shown, environments, launcher(gpus), wait)
        try:
            processes.run()
        except BaseException:
            processes.stop()
            raise
    return results(specs, runs)


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Inside the block, SIGTERM is what Ctrl-C is, so that no process is left behind; a second one is ignored."""

    def interrupt(*details: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
