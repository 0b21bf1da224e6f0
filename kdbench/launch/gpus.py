"""Which GPUs and threads each worker process gets."""

from __future__ import annotations

import os
import subprocess

from kdbench.errors import UserError


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
