"""Carrying a plan out: what is finished is left alone, what failed or never ended is done, teachers come first."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdbench import display, places, pool, worker
from kdbench.errors import RunError, UserError
from kdbench.plan import Spec
from kdbench.store import RunFolder


def open_runs(specs: Sequence[Spec], runs: Path, rerun: bool = False) -> list[Spec]:
    """The specs that are to be done, in order.

    A teacher that is there for others only is left out when none of those that need it is to be done, and is not repeated
    with `rerun`.
    """
    states = {spec.id: RunFolder(runs, spec.id).state() for spec in specs}
    asked = [s for s in specs if not s.is_teacher and (rerun or states[s.id] != "finished")]
    needed = {spec.teacher_run for spec in asked}
    teachers = [s for s in specs if s.is_teacher and s.id in needed and states[s.id] != "finished"]
    return teachers + asked


def outdated(specs: Sequence[Spec], runs: Path) -> list[Spec]:
    """The finished runs that were made by another version of their method's file than the one that is there now."""
    found = []
    for spec in specs:
        folder = RunFolder(runs, spec.id)
        made_by = (folder.result() or {}).get("provenance.method_sha256") if folder.state() == "finished" else None
        if made_by and made_by != places.file_sha256(places.sources()[spec.source]):
            found.append(spec)
    return found


def ask(specs: Sequence[Spec], runs: Path, rerun: bool = False) -> None:
    """Put the runs down in their folders, where whoever does them finds them."""
    for spec in specs:
        folder = RunFolder(runs, spec.id)
        failed = folder.state() == "failed"
        fresh = rerun and not spec.is_teacher
        folder.ask(spec.plain(), "fresh" if fresh else "resume" if failed else None)


def results(specs: Sequence[Spec], runs: Path) -> list[dict[str, Any]]:
    """The results that there are of these runs, in order."""
    return [result for spec in specs if (result := RunFolder(runs, spec.id).result())]


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


def launcher(each: int, nodes: int = 1, meet: str = "", name: str = "") -> list[str]:
    """What starts the processes that do a run together on this machine; nothing for one alone.

    Args:
        each: processes on each machine.
        nodes: machines, on each of which this is started.
        meet: where these find each other, as host:port.
        name: what tells them from others there.
    """
    if each * nodes == 1:
        return []
    where = ["--standalone"]
    if nodes > 1:
        where = [f"--nnodes={nodes}", "--rdzv-backend=c10d", f"--rdzv-endpoint={meet}", f"--rdzv-id={name}"]
    return ["torch.distributed.run", *where, f"--nproc-per-node={each}", "-m"]


def shares(workers: int | None, gpus: int = 1) -> list[dict[str, str]]:
    """The environment of each worker: its GPUs, or its share of the CPU's threads.

    Args:
        gpus: of each run.

    Raises:
        UserError: this machine has GPUs, and fewer than a run needs.
    """
    visible = visible_gpus()
    if visible and len(visible) < gpus:
        raise UserError(f"gpus={gpus}, and this machine has {len(visible)}")
    sets = [visible[first : first + gpus] for first in range(0, len(visible) - gpus + 1, gpus)]
    count = workers or len(sets) or 1
    # Where SLURM does not bind a job to its cores, only it says how many they are.
    cores = int(os.environ.get("SLURM_CPUS_PER_TASK") or len(os.sched_getaffinity(0)))
    threads = {"OMP_NUM_THREADS": str(max(1, cores // (count * gpus)))}
    if not sets:
        return [threads] * count
    return [{"CUDA_VISIBLE_DEVICES": ",".join(sets[number % len(sets)]), **threads} for number in range(count)]


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; asked without torch."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [gpu for gpu in named.split(",") if gpu and gpu != "-1"]
    try:
        listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(number) for number, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU ")]
