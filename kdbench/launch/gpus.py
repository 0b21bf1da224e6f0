"""The GPUs and threads of each worker process."""

from __future__ import annotations

import os
import subprocess

from kdbench.errors import UserError


def launcher(each: int, nodes: int = 1, meet: str = "", name: str = "") -> list[str]:
    """The words after `python -m` that start this node's processes of one run; none for a run in a single process.

    Args:
        each: processes on each node.
        nodes: number of nodes; the launcher is started on each of them.
        meet: the rendezvous of the nodes, as host:port.
        name: the id of this rendezvous, which others may use at the same time.
    """
    if each * nodes == 1:
        return []
    rendezvous = ["--standalone"]
    if nodes > 1:
        rendezvous = [f"--nnodes={nodes}", "--rdzv-backend=c10d", f"--rdzv-endpoint={meet}", f"--rdzv-id={name}"]
    return ["torch.distributed.run", *rendezvous, f"--nproc-per-node={each}", "-m"]


def shares(workers: int | None, gpus: int = 1) -> list[dict[str, str]]:
    """The environment variables of each worker: its GPUs, and its share of the CPU's threads.

    Args:
        workers: number of workers; None for one per set of GPUs, or one.
        gpus: number of GPUs of each run.

    Raises:
        UserError: this machine has GPUs, but fewer than a run needs.
    """
    visible = visible_gpus()
    if visible and len(visible) < gpus:
        raise too_few(gpus, len(visible))
    sets = [visible[first : first + gpus] for first in range(0, len(visible) - gpus + 1, gpus)]
    count = workers or len(sets) or 1
    # SLURM does not always bind a job to its cores; then only this variable has their number.
    cores = int(os.environ.get("SLURM_CPUS_PER_TASK") or len(os.sched_getaffinity(0)))
    threads = {"OMP_NUM_THREADS": str(max(1, cores // (count * gpus)))}
    if not sets:
        return [threads] * count
    return [{"CUDA_VISIBLE_DEVICES": ",".join(sets[number % len(sets)]), **threads} for number in range(count)]


def too_few(gpus: int, here: int) -> UserError:
    """The error for a run over more GPUs than this machine has."""
    return UserError(f"gpus={gpus}, but this machine has {here} GPU{'s' * (here != 1)}")


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, named as in CUDA_VISIBLE_DEVICES; determined without torch."""
    variable = os.environ.get("CUDA_VISIBLE_DEVICES")
    if variable is not None:
        return [gpu for gpu in variable.split(",") if gpu and gpu != "-1"]
    try:
        devices = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(number) for number, line in enumerate(devices.stdout.splitlines()) if line.startswith("GPU ")]
