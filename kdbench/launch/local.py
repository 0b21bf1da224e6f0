"""Carrying a plan out: what is finished is left alone, what failed or never ended is done, teachers come first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdbench.errors import RunError
from kdbench.launch import display, pool, worker
from kdbench.launch.backlog import ask, results
from kdbench.launch.gpus import launcher, shares
from kdbench.plan.spec import Spec

LAUNCHERS = {"inline": "inline", "local": "local"}


def inline(specs: Sequence[Spec], runs: Path, data: Path | None, rerun: bool = False) -> list[dict[str, Any]]:
    """Do runs one after the other in this process, and show how they go on; a failed one does not stop the others.

    Returns:
        Their results, in order; a run that another process is doing may have none yet.

    Raises:
        KeyboardInterrupt: the user stopped it.
        RunError: the disk is full.
    """
    ask(specs, runs, rerun)
    with display.for_terminal(specs) as shown, worker.Stop() as stop:
        try:
            worker.work(specs, runs, data, shown, stop)
        except OSError as error:
            raise RunError(worker.full_disk(error, runs)) from error
    if stop.all:
        raise KeyboardInterrupt
    return results(specs, runs)


def local(
    specs: Sequence[Spec], runs: Path, data: Path | None, workers: int | None, rerun: bool = False
) -> list[dict[str, Any]]:
    """Do runs in several processes of this machine: one for each GPU, or for each share of the CPU.

    Args:
        workers: how many; None: one for each GPU, one where there is none.

    Raises:
        KeyboardInterrupt: the user stopped it; the processes have kept their state.
        RunError: the disk is full, or no process can be started.
        UserError: this machine has GPUs, and fewer than a run needs.
    """
    ask(specs, runs, rerun)
    with display.for_terminal(specs) as shown:
        gpus = max(spec.gpus for spec in specs)
        processes = pool.Pool(specs, runs, data, shown, shares(workers, gpus), launcher(gpus))
        try:
            processes.run()
        except KeyboardInterrupt:
            processes.stop()
            raise
    return results(specs, runs)
