"""SLURM's commands, in an environment that neither the caller's allocation nor the user's settings for them change."""

from __future__ import annotations

import os
import re
import subprocess

TIMEOUT = 10.0
"""Seconds that squeue, sacct, scontrol and scancel get to respond."""

KEPT = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT", "SUBMITIT_PREEMPT_SIGNAL")
"""Variables that say which SLURM is meant and how to reach it, and the signal that a job's script and its program agree on."""
_OF_CALLER = re.compile(
    r"(SLURM|SLURMD|SLURMSTEPD|SBATCH|SRUN|SALLOC|SQUEUE|SACCT|SCANCEL|SCONTROL|SUBMITIT|PMI|PMI2|PMIX|PET|TORCHELASTIC)_.*"
    r"|(LOCAL_)?(RANK|WORLD_SIZE)|MASTER_(ADDR|PORT)|CUDA_VISIBLE_DEVICES|ROCR_VISIBLE_DEVICES|GPU_DEVICE_ORDINAL"
)


def environment() -> dict[str, str]:
    """The environment of this process without what describes its own job, and without options for SLURM's commands.

    sbatch hands it on to the job. There the caller's variables would overrule the profile: the memory per CPU of an
    allocation, a partition, the GPUs of another node.
    """
    return {name: value for name, value in os.environ.items() if name in KEPT or not _OF_CALLER.fullmatch(name)}


def call(*words: str, timeout: float | None = TIMEOUT) -> subprocess.CompletedProcess[str]:
    """Call one of SLURM's commands; what it prints in another encoding than UTF-8 is shown as bytes.

    Raises:
        OSError: it is missing.
        subprocess.TimeoutExpired: it does not respond.
    """
    return subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="backslashreplace",
        timeout=timeout,
        env=environment(),
    )
