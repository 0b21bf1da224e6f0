"""The GPUs and threads of each worker process."""

from __future__ import annotations

import os
import re
import subprocess

from kdbench.errors import UserError
from kdbench.store.provenance import RUNS_PER_GPU

HERE = "127.0.0.1"
"""The address of a single node."""


def launcher(
    each: int,
    nodes: int = 1,
    meet: str = f"{HERE}:0",
    name: str = "kdbench",
    address: str = HERE,
    is_first: bool = True,
) -> list[str]:
    """The words for torchrun that start this node's processes of one run; none for a run in a single process.

    Args:
        each: processes on each node.
        nodes: number of nodes; the launcher is started on each of them.
        meet: the rendezvous of the nodes, as host:port; port 0 for any free one.
        name: the id of this rendezvous, which others may use at the same time.
        address: of this node. torchrun would look up the machine's name, which need not resolve.
        is_first: whether this is the node of the rendezvous.
    """
    if each * nodes == 1:
        return []
    rendezvous = ["--rdzv-backend=c10d", f"--rdzv-endpoint={meet}", f"--rdzv-id={name}", f"--local-addr={address}"]
    return [f"--nnodes={nodes}", *rendezvous, f"--rdzv-conf=is_host={int(is_first)}", f"--nproc-per-node={each}"]


def shares(workers: int | None, gpus: int = 1, runs_per_gpu: int = 1) -> list[dict[str, str]]:
    """The environment variables of each worker: its GPUs, how many workers share them, and its share of the CPU's threads.

    The user's OMP_NUM_THREADS is an upper bound of the threads.

    Args:
        workers: number of workers; None for `runs_per_gpu` per set of GPUs, or so many where no GPU can be listed.
        gpus: number of GPUs of each run.

    Raises:
        UserError: this machine has GPUs, but fewer than a run needs, or MIG instances where a run needs several GPUs.
    """
    visible = visible_gpus()
    if visible and len(visible) < gpus:
        raise too_few(gpus, len(visible))
    if gpus > 1 and any(gpu.startswith("MIG-") for gpu in visible):
        raise UserError(f"gpus={gpus} needs whole GPUs: a process can use only one MIG instance")
    sets = [visible[first : first + gpus] for first in range(0, len(visible) - gpus + 1, gpus)]
    count = workers or max(1, len(sets)) * runs_per_gpu
    # SLURM does not always bind a job to its cores; then only this variable has their number.
    cores = _number("SLURM_CPUS_PER_TASK") or len(os.sched_getaffinity(0))
    share = max(1, cores // (count * gpus))
    threads = {"OMP_NUM_THREADS": str(min(share, _number("OMP_NUM_THREADS") or share))}
    if not sets:
        return [threads] * count
    environments = []
    for number in range(count):
        place = number % len(sets)
        own = {"CUDA_VISIBLE_DEVICES": ",".join(sets[place]), **threads}
        sharing = len(range(place, count, len(sets)))
        environments.append({**own, RUNS_PER_GPU: str(sharing)} if sharing > 1 else own)
    return environments


def _number(variable: str) -> int | None:
    """The positive number in an environment variable, the first one of a list as in OMP_NUM_THREADS=4,2; None without one."""
    text = os.environ.get(variable, "").partition(",")[0].strip()
    return int(text) or None if text.isdecimal() else None


def too_few(gpus: int, here: int) -> UserError:
    """The error for a run over more GPUs than this machine has."""
    return UserError(f"gpus={gpus}, but this machine has {here} GPU{'s' * (here != 1)}")


_GPU = re.compile(r"GPU (\d+):")
_MIG = re.compile(r"\s+MIG .*\(UUID: (MIG-[^)]+)\)")
"""Lines of `nvidia-smi --list-gpus`; a GPU's instances are below it."""


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, named as in CUDA_VISIBLE_DEVICES: numbers, GPU-… and MIG-… UUIDs; without torch.

    A GPU that is divided into MIG instances is replaced by them.
    """
    variable = os.environ.get("CUDA_VISIBLE_DEVICES")
    if variable is not None:
        return [gpu for part in variable.split(",") if (gpu := part.strip()) and gpu != "-1"]
    try:
        done = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    instances: dict[str, list[str]] = {}
    for line in done.stdout.decode(errors="replace").splitlines():
        if whole := _GPU.match(line):
            instances[whole[1]] = []
        elif instances and (instance := _MIG.match(line)):
            instances[list(instances)[-1]].append(instance[1])
    return [name for gpu, parts in instances.items() for name in parts or [gpu]]
